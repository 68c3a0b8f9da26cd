"""Many workers behind one front."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from torch import Tensor

from musiva.core.errors import (
    Cancelled,
    ExecutionFailed,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from musiva.core.types import Event, Request
from musiva.engine.fleet.commons import Commons
from musiva.engine.fleet.launcher import Launcher, Processes
from musiva.engine.fleet.member import Member, Phase
from musiva.engine.fleet.placement import LOOK, Load, loads_of, misplaced, placed
from musiva.engine.fleet.roster import Roster, Workers
from musiva.engine.fleet.standing import together
from musiva.engine.fleet.ticket import Ticket
from musiva.engine.fleet.wire import Cancel, Ready, Stepped
from musiva.engine.fleet.worker import Order
from musiva.engine.footprint import Footprint
from musiva.engine.front import Front, Listener
from musiva.engine.identity import Identity
from musiva.engine.journal import Entry
from musiva.engine.loop import Observer
from musiva.engine.pipeline import Pipeline
from musiva.engine.standing import Ended, Estimate, Ledger, Standing, WorkerStanding
from musiva.parallel import rows_of
from musiva.policy import POLICIES, place_of
from musiva.store import CacheFigures, Figures

__all__ = ["Fleet"]

log = logging.getLogger(__name__)


class Fleet(Front):
    """A front whose pictures are made by workers, each an engine in a process of its own.

    A request is placed on the worker that has the least to do. One that waits there moves to a
    worker that has nothing to do. A worker that ends is replaced; what it had goes on elsewhere
    from where it was told of last, and comes to the same picture. One that does not answer is ended
    first, so that no two ever run a request.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        workers: Workers,
        config: Front.Config | None = None,
        *,
        model: str | os.PathLike[str],
        dtype: str = "float32",
        device: str = "auto",
        compiled: bool = False,
        launcher: Launcher | None = None,
        observe: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Returns when all workers are ready. pipeline: what requests are checked with; model,
        dtype, device, compiled: of which each worker loads its own. observe: gets the plan of each
        step of any worker and its result, without pictures. Raises InvalidInput for a form that the
        model cannot have, what a worker fails of at its start, or Unavailable.
        """
        config = config or self.Config()
        scheduler = replace(config.scheduler, ranks=workers.degree)
        config = replace(config, patches=workers.patches, scheduler=scheduler)
        super().__init__(pipeline, config, config.scheduler.build().tariff)
        self.footprint = Footprint(pipeline, workers.count * workers.degree)
        self._launcher = launcher or Processes()
        self._observe = observe
        self._clock = clock
        self._identity = Identity.of(pipeline)
        self._commons: Commons | None = None
        if config.cache is not None:
            self._commons = Commons(config.cache, self._launcher.home, workers.degree)
            config = replace(config, cache=self._commons.config)
        self._order = Order(
            model=os.fspath(model),
            dtype=dtype,
            compiled=compiled,
            devices=(device,) * workers.degree,
            threads=workers.threads_each,
            config=replace(config, policies={}),
            own={
                name: place_of(made) or made
                for name, made in config.policies.items()
                if POLICIES.get(name) is not made
            },
            watched=observe is not None,
            form=workers.form,
            stall=workers.stall,
            start=workers.start,
        )
        self._lock = threading.RLock()
        self._roster = Roster(workers, self._lock, self._start, clock)
        self._tickets: dict[str, Ticket] = {}
        self._ledger = Ledger(clock())
        self._closing = False
        self._keeper = threading.Thread(target=self._keep, name="musiva-fleet", daemon=True)
        self._keeper.start()
        try:
            with self._lock:
                self._roster.await_ready()
        except BaseException:
            self.close(0.0)
            raise

    def close(self, timeout: float | None = None) -> None:
        with self._lock:
            self._closing = self._roster.closed = True
            members, left = self._roster.members, list(self._tickets.values())
            self._tickets.clear()
            self._roster.changed.notify_all()
        for ticket in left:
            ticket.tell(Event(ticket.request.id, "failed", error=Cancelled("closed")))
        for member in members:
            member.end()
        end = self._clock() + (self._roster.config.silence if timeout is None else timeout)
        for member in members:
            if not member.hold.join(max(end - self._clock(), 0.0)):
                member.hold.kill()
                member.hold.join(1.0)
        self._keeper.join()
        if self._commons is not None:
            self._commons.close()

    def check(self) -> None:
        with self._lock:
            if self._closing:
                raise Unavailable("the fleet is closed")
            self._roster.check()

    def submit(
        self, request: Request, listener: Listener, *, latents: Sequence[Tensor] | None = None
    ) -> None:
        if latents is not None:
            self._check_latents(request, latents)
        own = None if latents is None else [x.detach().cpu().numpy() for x in latents]
        ticket = Ticket(request, own, listener, self._clock(), self.seconds_alone(request))
        # Without the lock: it may take a while to be told.
        ticket.saved = {} if own is not None else self._saved(request)
        with self._lock:
            self.check()
            if len(self._tickets) >= self.config.max_waiting:
                raise Overloaded(
                    f"{len(self._tickets)} requests wait; at most {self.config.max_waiting} may"
                )
            if request.id in self._tickets:
                raise InvalidInput("id", request.id, "an id that no waiting request has")
            self._tickets[request.id] = ticket
            self._put(ticket)

    def cancel(self, request_id: str) -> None:
        with self._lock:
            ticket = self._tickets.get(request_id)
            if ticket is None:
                return
            ticket.withdrawn = True
            if ticket.member is not None:
                ticket.member.send(Cancel(request_id))
                return
            del self._tickets[request_id]
        ticket.tell(_cancelled(ticket))

    def drain(self, number: int) -> None:
        with self._lock:
            places = self._roster.places
            if not 0 <= number < len(places):
                raise InvalidInput("worker", number, f"0 to {len(places) - 1}")
            member = places[number].member
            if member is None or member.phase is not Phase.READY:
                raise Unavailable(f"worker {number} is not ready")
            if len(self._roster.ready) < 2:
                raise Unavailable(f"worker {number} is the only one that is ready")
            member.phase = Phase.DRAINING
            for ticket in self._on(member):
                self._move(ticket)

    def standing(self) -> Standing:
        found = [answer.result() for answer in self._asked().values() if _has_answered(answer)]
        self.check()
        with self._lock:
            homeless = sum(ticket.member is None for ticket in self._tickets.values())
            return together(found, self._ledger, self._clock(), homeless)

    def members(self) -> list[WorkerStanding]:
        with self._lock:
            loads = self._loads()
            return [
                WorkerStanding(
                    number=number,
                    phase=Phase.GONE if member is None else member.phase,
                    pid=None if member is None else member.hold.pid,
                    life=place.lives,
                    **loads.get(number, Load())._asdict(),
                    steps=0 if member is None else member.steps,
                    store_bytes=member.figures.used_bytes if member and member.figures else 0,
                    found=cached.hits,
                    not_found=cached.misses,
                    host=member.ready.host if member and member.ready else None,
                    links=[] if member is None else member.links,
                )
                for number, place in enumerate(self._roster.places)
                for member in [place.member]
                for cached in [(member and member.cached) or CacheFigures()]
            ]

    def estimates(self, request: Request) -> list[Estimate]:
        """Of the worker that would have it done first."""
        answers = self._asked(request).values()
        found = [answer.result() for answer in answers if _has_answered(answer)]
        self.check()
        if not found:
            raise Unavailable("no worker is ready; more are starting")
        return min(found, key=lambda several: several[-1].finish)

    @property
    def reach(self) -> tuple[str, ...]:
        lost = ("tiles",) if self._in_lumps else ()
        return tuple(name for name in super().reach if name not in lost)

    @property
    def out_of_reach(self) -> str:
        return "its ranks have whole frames or strips" if self._in_lumps else super().out_of_reach

    @property
    def _in_lumps(self) -> bool:
        """Whether ranks cannot share some tokens out, and keep pages of them."""
        rows, align = rows_of(self._order.form), self.pipeline.denoiser.align
        lumps = rows == "dynamic" or (rows == "ulysses" and align > 1)
        return lumps and self._order.degree > 1

    @property
    def num_waiting(self) -> int:
        return len(self._tickets)

    @property
    def num_running(self) -> int:
        with self._lock:
            return sum(ticket.begun for ticket in self._tickets.values())

    @property
    def store_figures(self) -> Figures:
        """Of all workers, after their last answers; what those did that are gone counts too."""
        with self._lock:
            there = [member.figures for member in self._roster.members]
            gone = [place.used for place in self._roster.places]
        return Figures.total([one for one in (*there, *gone) if one is not None])

    @property
    def cache_figures(self) -> CacheFigures | None:
        """Of all workers, after their last answers; what those did that are gone counts too."""
        with self._lock:
            there = [member.cached for member in self._roster.members]
            gone = [place.cached for place in self._roster.places]
        known = [one for one in (*there, *gone) if one is not None]
        return CacheFigures.total(known) if self._commons is not None else None

    def num_before(self, request_id: str) -> int | None:
        with self._lock:
            ticket = self._tickets.get(request_id)
            if ticket is None or ticket.begun:
                return None
            return list(self._tickets).index(request_id)

    def _start(self, number: int, life: int) -> Member:
        hold = self._launcher(number, self._order)
        return Member(number, life, hold, self._heard, self._lost, self._clock)

    def _keep(self) -> None:
        """The fleet's own thread: looks after workers and where requests are."""
        while not self._closing:
            news: list[tuple[Ticket, Event]] = []
            with self._lock:
                try:
                    news = self._look()
                except Exception:
                    # Who looks after all others must not be the one that is missing.
                    log.exception("the fleet could not look after its workers")
                self._roster.changed.wait(LOOK)
            for ticket, event in news:
                ticket.tell(event)

    def _look(self) -> list[tuple[Ticket, Event]]:
        """Once over all; requests that end by it."""
        self._roster.tend()
        for member in self._roster.members:
            is_done = not self._on(member)
            if member.phase is Phase.DRAINING and not member.drained and is_done:
                member.end()
        for ticket in self._tickets.values():
            if ticket.member is None:
                self._put(ticket)
        self._balance()
        return self._abandoned()

    def _heard(self, member: Member, message: object) -> None:
        if isinstance(message, Event):
            self._news(member, message)
        elif isinstance(message, Entry):
            with self._lock:
                ticket = self._tickets.get(message.request)
                if ticket is not None and ticket.member is member:
                    ticket.enter(message)
        elif isinstance(message, Stepped) and self._observe is not None:
            try:
                self._observe(message.plan, message.result)
            except Exception:
                log.exception("the observer of steps failed")
        elif isinstance(message, Ready):
            if lacking := self._identity.differs(message.identity):
                member.fail(f"on {message.host} it is another one: the server has {lacking}")
                return
            with self._lock:
                member.ready = message
                member.phase, member.was_ready = Phase.READY, True
                self._roster.places[member.number].useless = 0
                self._roster.changed.notify_all()

    def _news(self, member: Member, event: Event) -> None:
        """An event of a request that a worker has."""
        with self._lock:
            ticket = self._tickets.get(event.request)
            if ticket is None or ticket.member is not member:
                return
            if event.kind == "failed":
                told = self._failed(ticket, event)
                if told is None:
                    return
                event = told
            elif not ticket.is_news(event):
                return
            if event.kind in ("done", "failed"):
                del self._tickets[event.request]
            if event.report is not None:
                good = event.report.deadline_met is not False
                self._ledger.ended.append(Ended(self._clock(), good, quality=event.report.used))
        ticket.tell(event)

    def _failed(self, ticket: Ticket, event: Event) -> Event | None:
        """What its owner is told of a request that failed on its worker; None where it goes on."""
        error = event.error
        if ticket.withdrawn:
            return _cancelled(ticket)
        if isinstance(error, Cancelled) and ticket.leaves:
            self._put(ticket)
            return None
        if not isinstance(error, Overloaded) or ticket.admitted:
            return event
        assert ticket.member is not None
        ticket.refusals[ticket.member.number] = error
        if any(member.number not in ticket.refusals for member in self._roster.ready):
            self._put(ticket)
            return None
        self._ledger.ended.append(Ended(self._clock(), good=False, refused=True))
        soonest = min(
            ticket.refusals.values(), key=lambda e: math.inf if e.finish is None else e.finish
        )
        return replace(event, error=soonest)

    def _lost(self, member: Member) -> None:
        """A worker is gone: what it had goes on elsewhere."""
        news: list[tuple[Ticket, Event]] = []
        with self._lock:
            if self._closing:
                return
            self._roster.lost(member)
            for ticket in self._on(member):
                event = self._after_loss(ticket, member)
                if event is None:
                    self._put(ticket)
                else:
                    del self._tickets[ticket.request.id]
                    news.append((ticket, event))
            news += self._abandoned()
        for ticket, event in news:
            ticket.tell(event)

    def _abandoned(self) -> list[tuple[Ticket, Event]]:
        """The ends of those that are on no worker, where none comes any more."""
        try:
            self._roster.check()
        except Unavailable as error:
            left = [ticket for ticket in self._tickets.values() if ticket.member is None]
            for ticket in left:
                del self._tickets[ticket.request.id]
            return [(one, Event(one.request.id, "failed", error=error)) for one in left]
        return []

    def _after_loss(self, ticket: Ticket, member: Member) -> Event | None:
        """How a request ends whose worker is gone; None where it goes on."""
        if ticket.withdrawn:
            return _cancelled(ticket)
        if len(ticket.done) == ticket.request.num_images:
            return Event(ticket.request.id, "done")
        ticket.refusals.clear()
        ticket.losses += not member.drained
        most = self._roster.config.losses
        if ticket.losses < most:
            return None
        said = f"{most} workers ended while they had it; the last: {member.failure or 'no word'}"
        return Event(ticket.request.id, "failed", error=ExecutionFailed(said))

    def _put(self, ticket: Ticket) -> None:
        """On a worker, or on none where none is ready."""
        ticket.leaves, ticket.member = False, None
        number = self._best(ticket, self._loads())
        if number is None:
            return
        ticket.member = self._roster.places[number].member
        assert ticket.member is not None
        ticket.member.send(ticket.submission(self._clock()))

    def _saved(self, request: Request) -> dict[int, float]:
        """Seconds that workers would save of a request, with what is near them."""
        if self._commons is None:
            return {}
        with self._lock:
            told = {member.number: member.ready for member in self._roster.ready}
        holders = {number: one.holder for number, one in told.items() if one and one.holder}
        roots = {one.root for one in told.values() if one and one.root}
        return self._commons.saved(self, request, holders, min(roots)) if roots else {}

    def _move(self, ticket: Ticket) -> None:
        """Let it go on elsewhere when its worker's step ends."""
        if ticket.member is not None and not ticket.leaves and not ticket.withdrawn:
            ticket.leaves = True
            ticket.member.send(Cancel(ticket.request.id))

    def _balance(self) -> None:
        """A request that waits goes where nothing is."""
        loads = self._loads()
        pair = misplaced(loads)
        if pair is None:
            return
        member = self._roster.places[pair[0]].member
        assert member is not None
        own = self._on(member)
        if any(ticket.leaves for ticket in own):
            return
        waiting = [ticket for ticket in own if ticket.admitted and not ticket.begun]
        # Those that would come back, since what they need is there, stay.
        others = (one for one in reversed(waiting) if self._best(one, loads) != pair[0])
        if (ticket := next(others, None)) is not None:
            self._move(ticket)

    def _best(self, ticket: Ticket, loads: Mapping[int, Load]) -> int | None:
        """Where it would go if it were nowhere."""
        if ticket.member is not None and (own := loads.get(ticket.member.number)):
            left = own._replace(seconds=own.seconds - ticket.left)
            loads = {**loads, ticket.member.number: left}
        return placed(loads, ticket.refusals, {} if ticket.told else ticket.saved)

    def _on(self, member: Member) -> list[Ticket]:
        """In order of arrival."""
        return [ticket for ticket in self._tickets.values() if ticket.member is member]

    def _loads(self) -> dict[int, Load]:
        """Of all workers that take requests."""
        return loads_of(
            [member.number for member in self._roster.ready],
            (
                (ticket.member.number, ticket.left, ticket.begun)
                for ticket in self._tickets.values()
                if ticket.member is not None
            ),
        )

    def _asked(self, request: Request | None = None) -> dict[int, Future[Any]]:
        """The answers of all workers that are ready."""
        with self._lock:
            ready = list(self._roster.ready)
        return {member.number: member.ask(request) for member in ready}


def _has_answered(answer: Future[Any]) -> bool:
    """Waits. False where the worker is gone, or closes."""
    error = answer.exception()
    if error is not None and not isinstance(error, Unavailable):
        raise error
    return error is None


def _cancelled(ticket: Ticket) -> Event:
    name = ticket.request.id
    return Event(name, "failed", error=Cancelled(f"request {name} was cancelled"))
