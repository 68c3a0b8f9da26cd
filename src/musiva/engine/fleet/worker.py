"""A worker: an engine whose requests come over a channel, and whose news go back over it."""

from __future__ import annotations

import logging
import platform
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

import torch

from musiva.comm import Group, Lone, joined
from musiva.core.errors import ExecutionFailed, MusivaError, Unavailable
from musiva.core.types import Event, StepPlan, StepResult
from musiva.engine.engine import Engine
from musiva.engine.executor import InlineExecutor
from musiva.engine.fleet.group import Leader, follow
from musiva.engine.fleet.wire import (
    Answer,
    Ask,
    Cancel,
    Channel,
    Close,
    Failed,
    Ping,
    Pong,
    Ready,
    Stepped,
    Submit,
)
from musiva.engine.front import Front
from musiva.engine.identity import Identity
from musiva.engine.journal import Entry
from musiva.engine.load import load_pipeline
from musiva.engine.loop import StoringExecutor
from musiva.engine.pipeline import Pipeline
from musiva.parallel import Form
from musiva.policy import POLICIES, PolicyClass, load_policy_class
from musiva.store import Cache

__all__ = ["Order", "Seat", "Worker", "attend_to", "cache_of", "executor_of", "work"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is to run. model, dtype, compiled: as of `load_pipeline`. devices: of its
    ranks, as there. threads: of the CPU kernels; None leaves them as they are. config: of its
    engine, whose policies are Musiva's. own: further ones, or where `load_policy_class` finds them.
    watched: whether it tells of each step. form: how its ranks share a pack. stall: seconds after
    which a rank that does not take part counts as lost; start: that ranks may be apart at their
    start.
    """

    model: str
    dtype: str = "float32"
    compiled: bool = False
    devices: Sequence[str] = ("auto",)
    threads: int | None = None
    config: Front.Config
    own: Mapping[str, PolicyClass | str]
    watched: bool = False
    form: Form = "ulysses"
    stall: float = 120.0
    start: float = 600.0

    @property
    def degree(self) -> int:
        """Its ranks."""
        return len(self.devices)

    def at(self, address: str) -> Order:
        """For a machine that others reach at that address."""
        cache = self.config.cache
        if cache is None:
            return self
        return replace(self, config=replace(self.config, cache=replace(cache, listen=address)))


@dataclass(frozen=True, slots=True)
class Seat:
    """Of a process among the ranks of a worker. meeting: where they meet, as of `joined`. others:
    of the first one, its channels to the others; of another one, that to the first.
    """

    rank: int
    meeting: str
    others: Sequence[Channel]


def work(channel: Channel, order: Order, seat: Seat | None = None) -> None:
    """What the first process of a worker does, until it is told to end or nobody is there any more.
    seat: None for its only one.
    """
    try:
        pipeline = _prepared(order, 0)
        with _seated(order, seat) as group, cache_of(order) as cache:
            executor = executor_of(pipeline, order, group, cache)
            leads = executor if seat is None else Leader(executor, seat.others)
            Worker(channel, order, pipeline, leads, cache, executor.root).run()
    except Exception as error:
        with suppress(OSError):
            channel.send(Failed(error))
    finally:
        # Only now, since whoever hears that it has ended ends its process.
        channel.close()


def attend_to(order: Order, seat: Seat) -> None:
    """What every other process of a worker does, until the first one is gone."""
    pipeline = _prepared(order, seat.rank)
    with _seated(order, seat) as group, cache_of(order) as cache:
        (leader,) = seat.others
        follow(executor_of(pipeline, order, group, cache), leader)


def _prepared(order: Order, rank: int) -> Pipeline:
    # Ctrl-C reaches all processes of a terminal; who started this one tells it when to end.
    with suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if order.threads is not None:
        torch.set_num_threads(order.threads)
    device = order.devices[rank]
    return load_pipeline(order.model, dtype=order.dtype, device=device, compiled=order.compiled)


def _seated(order: Order, seat: Seat | None) -> AbstractContextManager[Group]:
    if seat is None:
        return nullcontext(Lone())
    return joined(seat.rank, order.degree, seat.meeting, order.stall, order.start)


@contextmanager
def cache_of(order: Order) -> Iterator[Cache | None]:
    """That of one of its ranks, as long as the block runs. Raises Unavailable."""
    # Where the directory cannot be asked just now, it can be later.
    cache = None if order.config.cache is None else Cache(order.config.cache)
    try:
        yield cache
    finally:
        if cache is not None:
            cache.close()


def executor_of(
    pipeline: Pipeline, order: Order, group: Group, cache: Cache | None = None
) -> InlineExecutor:
    """Of one of its ranks."""
    return InlineExecutor(
        pipeline,
        store_bytes=order.config.store_bytes,
        group=group,
        form=order.form,
        cache=cache,
    )


class Worker:
    """Serves one channel. Its engine's thread and its own send; only its own receives."""

    def __init__(
        self,
        channel: Channel,
        order: Order,
        pipeline: Pipeline,
        executor: StoringExecutor,
        cache: Cache | None = None,
        root: str | None = None,
    ) -> None:
        """cache: of the executor, and the root of the names in it."""
        own = {
            name: made if not isinstance(made, str) else load_policy_class(made)[1]
            for name, made in order.own.items()
        }
        self._channel, self._cache, self._root = channel, cache, root
        self._steps, self._moved = 0, time.monotonic()
        self._watched = order.watched
        self._identity = Identity.of(pipeline)
        config = replace(order.config, policies={**POLICIES, **own})
        self._engine = Engine(
            pipeline, config, observe=self._observe, journal=self._send, executor=executor
        )
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="musiva-worker-answers")

    def run(self) -> None:
        """Returns when it is told to, or when nobody is there."""
        holder = None if self._cache is None else self._cache.holder
        self._send(Ready(platform.node(), self._identity, holder, self._root))
        try:
            while self._obey(self._channel.receive()):
                pass
        except EOFError:
            pass
        finally:
            self._engine.close()
            self._pool.shutdown(cancel_futures=True)

    def _obey(self, message: object) -> bool:
        """Whether there is more to come."""
        if isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Cancel):
            self._engine.cancel(message.request)
        elif isinstance(message, Ask):
            self._pool.submit(self._answer, message)
        elif isinstance(message, Ping):
            try:
                self._engine.check()
            except Unavailable as error:
                self._send(Failed(error))
                return False
            stuck = time.monotonic() - self._moved if self._engine.num_waiting else 0.0
            cached = None if self._cache is None else self._cache.figures()
            figures, links = self._engine.store_figures, self._engine.links
            self._send(Pong(figures, self._steps, stuck, cached, links))
        return not isinstance(message, Close)

    def _submit(self, message: Submit) -> None:
        request, latents, resumed = message.request, message.latents, message.resumed
        if not self._engine.num_waiting:
            self._moved = time.monotonic()
        try:
            self._engine.submit(
                request,
                self._tell,
                latents=None if latents is None else [torch.from_numpy(x) for x in latents],
                age=message.age,
                resumed=None
                if resumed is None
                else {i: packed and Entry.resumption(*packed) for i, packed in resumed.items()},
            )
        except MusivaError as error:
            self._tell(Event(request.id, "failed", error=error))
        except Exception as error:
            # Of a record that cannot be read, which is a user's class.
            log.exception("request %s cannot be taken on", request.id)
            failed = ExecutionFailed(f"it cannot be taken on: {error}")
            self._tell(Event(request.id, "failed", error=failed))

    def _tell(self, event: Event) -> None:
        if event.kind == "failed":
            try:
                self._engine.check()
            except Unavailable as error:
                # It fails of what ends the worker, and may go on elsewhere.
                self._send(Failed(error))
                return
        self._send(event)

    def _answer(self, message: Ask) -> None:
        try:
            if message.request is None:
                value = self._engine.standing()
            else:
                value = self._engine.estimates(message.request)
        except Exception as error:
            self._send(Answer(message.number, error=error))
        else:
            self._send(Answer(message.number, value))

    def _observe(self, plan: StepPlan, result: StepResult) -> None:
        self._steps, self._moved = self._steps + 1, time.monotonic()
        if self._watched:
            outcomes = tuple(replace(outcome, picture=None) for outcome in result.outcomes)
            self._send(Stepped(plan, replace(result, outcomes=outcomes)))

    def _send(self, message: object) -> None:
        # Where nobody is there, `run` is told so too, and ends.
        with suppress(OSError):
            self._channel.send(message)
