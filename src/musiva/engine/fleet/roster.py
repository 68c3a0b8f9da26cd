"""The places of a fleet: who is there, whether they live, and who comes after them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from musiva.core.errors import InvalidInput, Unavailable
from musiva.engine.fleet.member import Member, Phase
from musiva.engine.fleet.wire import Ping
from musiva.parallel import FORMS, Form, check_degree
from musiva.store import CacheFigures, Figures

__all__ = ["Place", "Roster", "Workers"]

log = logging.getLogger(__name__)
# Seconds until the next worker of a place, doubled for each that was of no use.
PAUSE, LONGEST_PAUSE = 0.2, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """count: of them. degree: ranks of each, processes that share the work on every picture; form:
    how they do. threads: of the CPU kernels of each process; None shares the cores out. silence:
    seconds without an answer after which a worker counts as hung. stall: seconds after which a rank
    counts as lost that does not take part. start: seconds that a worker may take until its model is
    loaded. losses: a request during which so many workers have ended fails, since it may be what
    ends them. attempts: workers of a place that were never ready, in a row, until nobody waits for
    the next one any more.
    step: seconds after which a worker counts as hung whose step does not end.

    Raises InvalidInput.
    """

    count: int
    degree: int = 1
    form: Form = "ulysses"
    threads: int | None = None
    silence: float = 20.0
    stall: float = 120.0
    start: float = 600.0
    losses: int = 3
    attempts: int = 5
    step: float = 600.0

    @property
    def patches(self) -> int:
        """Parts that tokens are cut into: one for each rank, where that is what they share."""
        return self.degree if self.form == "patch" else 1

    @property
    def threads_each(self) -> int:
        return self.threads or max((os.cpu_count() or 1) // (self.count * self.degree), 1)

    def __post_init__(self) -> None:
        for name in ("count", "degree", "losses", "attempts"):
            if getattr(self, name) < 1:
                field = "workers" if name == "count" else name
                raise InvalidInput(field, getattr(self, name), "a whole number of at least 1")
        if self.form not in FORMS:
            raise InvalidInput("form", self.form, ", ".join(FORMS))
        check_degree(self.form, self.degree)
        for name in ("silence", "stall", "start", "step"):
            if not getattr(self, name) > 0.0:
                raise InvalidInput(name, getattr(self, name), "seconds above 0")


@dataclass(slots=True)
class Place:
    """lives: workers that it has had. useless: the last of them, in a row, that were never ready.
    starting: the next one is on its way. since: when the present one was started, again: when the
    next one is, by the clock. pinged: when the present one was asked last. failure: what the last
    one said why it ended. used: what the stores of those that are gone have done; cached: what
    their caches have.
    """

    member: Member | None = None
    lives: int = 0
    useless: int = 0
    starting: bool = False
    since: float = 0.0
    again: float = 0.0
    pinged: float = 0.0
    failure: Exception | None = None
    used: Figures | None = None
    cached: CacheFigures | None = None


class Roster:
    """lock: of the fleet, which is held wherever a method is called. start: starts a worker, by
    place and life. clock: seconds. closed: nobody is to be started any more.
    """

    def __init__(
        self,
        config: Workers,
        lock: threading.RLock,  # pyright: ignore[reportGeneralTypeIssues]
        start: Callable[[int, int], Member],
        clock: Callable[[], float],
    ) -> None:
        self.config = config
        self.places = [Place() for _ in range(config.count)]
        self.changed = threading.Condition(lock)
        self.closed = False
        self._start, self._clock = start, clock

    @property
    def members(self) -> list[Member]:
        """All that are there, whatever they do."""
        return [place.member for place in self.places if place.member is not None]

    @property
    def ready(self) -> list[Member]:
        """Those that take requests."""
        return [member for member in self.members if member.phase is Phase.READY]

    def check(self) -> None:
        """Raises Unavailable where nobody is there, and it is not worth waiting for the next."""
        if all(place.useless >= self.config.attempts for place in self.places):
            message = "no worker is left: all ended again and again, the log says of what; "
            raise Unavailable(message + f"one is tried every {LONGEST_PAUSE:g} seconds")

    def await_ready(self) -> None:
        """Until all first workers are. Raises what one of them fails of, or Unavailable."""
        while len(self.ready) < len(self.places):
            self.changed.wait(1.0)
            if self.closed:
                raise Unavailable("the fleet was closed")
            for place in self.places:
                if place.useless:
                    raise place.failure or Unavailable("a worker ended before it was ready")
        log.info("%d workers are ready", len(self.places))

    def lost(self, member: Member) -> None:
        """It is gone."""
        place = self.places[member.number]
        if place.member is not member:
            return
        place.member, place.failure = None, member.failure
        expected = member.drained
        if expected or member.was_ready:
            place.useless, place.again = 0, self._clock()
        else:
            self._pause(place)
        if member.figures is not None:
            place.used = Figures.total(
                [member.figures.done(), *([place.used] if place.used else [])]
            )
        if member.cached is not None:
            gone = member.cached.done()
            place.cached = CacheFigures.total([gone, *([place.cached] if place.cached else [])])
        said = "has ended as told" if expected else f"is lost ({member.failure or 'no word'})"
        log.log(logging.INFO if expected else logging.WARNING, "%s %s", member.name, said)
        self.changed.notify_all()

    def tend(self) -> None:
        """Start who is missing, ask who is there, and end who does not answer."""
        now, config = self._clock(), self.config
        for number, place in enumerate(self.places):
            member = place.member
            if member is None:
                if not place.starting and place.again <= now:
                    place.starting = True
                    place.lives += 1
                    name = f"musiva-fleet-starts-{number}"
                    threading.Thread(
                        target=self._fill, args=(number, place), name=name, daemon=True
                    ).start()
            elif member.phase is Phase.GONE:
                continue  # whoever hears it is about to say so
            elif not member.hold.whole:
                member.fail("a rank of it has ended")
            elif member.phase is Phase.STARTING:
                if now - place.since > config.start:
                    member.fail(f"it was not ready after {config.start:g} seconds")
            elif member.stuck > config.step:
                member.fail(f"it has been at a step for {member.stuck:.0f} seconds")
            elif member.heard_at >= place.pinged:
                if now - place.pinged > config.silence / 8:
                    place.pinged = now
                    member.send(Ping())
            elif now - place.pinged > config.silence:
                member.fail(f"it has not answered for {config.silence:g} seconds")

    def _fill(self, number: int, place: Place) -> None:
        """In a thread of its own and without the lock: it may take a while to find room."""
        member, failure = None, None
        try:
            member = self._start(number, place.lives)
        except Exception as error:
            log.warning("worker %d cannot be started: %s", number, error, exc_info=True)
            failure = Unavailable(f"worker {number} cannot be started: {error}")
            failure.__cause__ = error
        with self.changed:
            place.starting, place.member = False, member
            place.since = place.pinged = self._clock()
            if member is None:
                place.failure = failure
                self._pause(place)
            elif self.closed:
                member.hold.kill()
            elif member.phase is Phase.GONE:
                self.lost(member)
            self.changed.notify_all()

    def _pause(self, place: Place) -> None:
        """After a worker that was never ready."""
        place.useless += 1
        place.again = self._clock() + min(PAUSE * 2.0 ** min(place.useless - 1, 30), LONGEST_PAUSE)
