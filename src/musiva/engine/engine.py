"""The engine as users hold it: one model, one loop in a thread of its own, any number of
callers.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from musiva.comm import LinkFigures
from musiva.core.errors import Cancelled, ExecutionFailed, InvalidInput, Overloaded, Unavailable
from musiva.core.types import Event, Request
from musiva.engine.executor import InlineExecutor
from musiva.engine.front import Front, Listener
from musiva.engine.journal import Entry, Journal, Resumption
from musiva.engine.load import load_pipeline
from musiva.engine.loop import Observer, StepLoop, StoringExecutor
from musiva.engine.pipeline import Pipeline
from musiva.engine.standing import Estimate, Standing
from musiva.policy import Policy, Trip
from musiva.store import Cache, CacheFigures, Figures

if TYPE_CHECKING:
    from musiva.client import RemoteEngine, Timeout

__all__ = ["Engine"]

log = logging.getLogger(__name__)
T = TypeVar("T")
# Most requests that are let in between two steps.
TAKEN = 64


@dataclass(frozen=True, slots=True)
class Submission:
    request: Request
    policies: Sequence[Policy]
    trip: Trip
    rows: int
    latents: Sequence[Tensor] | None
    listener: Listener
    arrived: float
    resumed: Mapping[int, Resumption | None] | None


class Engine(Front):
    """A front with its pictures in this process; those of all callers are computed in shared packs.

    with Engine.load("default") as engine:
        pictures = engine.generate(["a fox"], size=(96, 96), seed=1)
    """

    def __init__(
        self,
        pipeline: Pipeline,
        config: Front.Config | None = None,
        *,
        observe: Observer | None = None,
        journal: Callable[[Entry], None] | None = None,
        executor: StoringExecutor | None = None,
    ) -> None:
        """observe: gets every plan and its result. journal: what others need to go on with
        requests, entry by entry. Both in the engine's thread. executor: of the pipeline, with a
        cache or without; None for one in this process. Raises Unavailable for a cache that cannot
        be had.
        """
        config = config or self.Config()
        scheduler = config.scheduler.build()
        super().__init__(pipeline, config, scheduler.tariff)
        self._cache: Cache | None = None
        if executor is None:
            self._cache = None if config.cache is None else config.cache.build()
            try:
                executor = InlineExecutor(
                    pipeline, store_bytes=config.store_bytes, cache=self._cache
                )
            except BaseException:
                if self._cache is not None:
                    self._cache.close()
                raise
        self._executor = executor
        told = None if journal is None else Journal(journal, time.monotonic)
        self._loop = StepLoop(self._executor, scheduler, observe, journal=told)
        self._wake = threading.Condition()
        self._inbox: deque[Submission] = deque()
        self._cancelled: set[str] = set()
        self._questions: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._listeners: dict[str, Listener] = {}
        self._running: set[str] = set()
        self._closing = False
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="musiva-engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "default",
        config: Front.Config | None = None,
        *,
        dtype: str = "float32",
        device: str = "auto",
        compiled: bool = False,
        observe: Observer | None = None,
    ) -> Engine:
        """A shipped model by name, or a diffusers directory, as of `load_pipeline`. `observe` gets
        every plan and its result. Raises UnknownModel, BadCheckpoint, InvalidInput, Unavailable.
        """
        pipeline = load_pipeline(model, dtype=dtype, device=device, compiled=compiled)
        return cls(pipeline, config, observe=observe)

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        timeout: Timeout | float | None = None,
        retries: int = 2,
    ) -> RemoteEngine:
        """The engine of the Musiva server at `url`, for `generate` and `stream`; no model is loaded
        here, and the server is asked only for pictures. Raises InvalidInput.
        """
        from musiva.client import RemoteEngine

        return RemoteEngine(url, api_key=api_key, timeout=timeout, retries=retries)

    def close(self, timeout: float | None = None) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)
        if self._cache is not None and not self._thread.is_alive():
            self._cache.close()

    def check(self) -> None:
        if self._closing or self._broken:
            raise Unavailable(f"the engine is closed{f': {self._broken}' if self._broken else ''}")

    def submit(
        self,
        request: Request,
        listener: Listener,
        *,
        latents: Sequence[Tensor] | None = None,
        age: float = 0.0,
        resumed: Mapping[int, Resumption | None] | None = None,
    ) -> None:
        """See `Front`. age: seconds since it came, elsewhere. resumed: of one that was admitted
        elsewhere, see `StepLoop.submit`.
        """
        if latents is not None:
            self._check_latents(request, latents)
        # Here and not in the engine's thread, which whatever a user's class raises would stop.
        policies, trip = self.policies_of(request), self.trip_of(request)
        submission = Submission(
            request,
            policies,
            trip,
            self.rows_of(request),
            latents,
            listener,
            self._loop.clock() - age,
            resumed,
        )
        with self._wake:
            self.check()
            if len(self._listeners) >= self.config.max_waiting:
                raise Overloaded(
                    f"{len(self._listeners)} requests wait; at most {self.config.max_waiting} may"
                )
            if request.id in self._listeners:
                raise InvalidInput("id", request.id, "an id that no waiting request has")
            self._listeners[request.id] = listener
            self._inbox.append(submission)
            self._wake.notify()

    def cancel(self, request_id: str) -> None:
        with self._wake:
            if request_id in self._listeners:
                self._cancelled.add(request_id)
                self._wake.notify()

    def standing(self) -> Standing:
        return self._asked(lambda: self._loop.standing())

    def estimates(self, request: Request) -> list[Estimate]:
        policies, trip, rows = (
            self.policies_of(request),
            self.trip_of(request),
            self.rows_of(request),
        )
        return self._asked(
            lambda: self._loop.estimates(request, policies=policies, trip=trip, rows=rows)
        )

    @property
    def num_waiting(self) -> int:
        return len(self._listeners)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def store_figures(self) -> Figures:
        return self._executor.store_figures

    @property
    def links(self) -> Sequence[LinkFigures]:
        return self._executor.links

    @property
    def cache_figures(self) -> CacheFigures | None:
        return None if self._cache is None else self._cache.figures()

    def num_before(self, request_id: str) -> int | None:
        with self._wake:
            if request_id in self._running or request_id not in self._listeners:
                return None
            return list(self._listeners).index(request_id)

    def _work(self) -> None:
        """The engine's thread: take what came in, run one step, tell the news."""
        try:
            while self._take_in():
                events = self._loop.step()
                if events is None:
                    self._sleep()
                for event in events or []:
                    self._tell(event)
        except Exception as error:
            log.exception("the engine stopped")
            self._broken = error
        with self._wake:
            self._closing = True
            left = list(self._listeners)
            for _, answer in self._questions:
                answer.set_exception(Unavailable("the engine is closed"))
            self._questions.clear()
        for request_id in left:
            reason = (
                Unavailable(f"the engine stopped: {self._broken}")
                if self._broken
                else Cancelled("closed")
            )
            self._tell(Event(request_id, "failed", error=reason))

    def _asked(self, question: Callable[[], T]) -> T:
        """The answer of the engine's thread, between two steps."""
        answer: Future[T] = Future()
        with self._wake:
            self.check()
            self._questions.append((question, answer))
            self._wake.notify()
        return answer.result()

    def _take_in(self) -> bool:
        """Move submissions and cancellations into the loop, and answer questions; False when the
        engine is closing.
        """
        with self._wake:
            cancelled, questions = set(self._cancelled), list(self._questions)
            waiting = [s for s in self._inbox if s.request.id not in cancelled]
            # A flood must not hold up the next step.
            arrived = waiting[:TAKEN]
            self._inbox = deque(waiting[TAKEN:])
            self._cancelled.clear()
            self._questions.clear()
            if self._closing:
                self._questions.extend(questions)
                return False
        for question, answer in questions:
            try:
                answer.set_result(question())
            except Exception as error:
                answer.set_exception(error)
        for s in arrived:
            try:
                admitted = self._loop.submit(
                    s.request,
                    policies=s.policies,
                    trip=s.trip,
                    rows=s.rows,
                    decode_shares=self.pipeline.decode_shares(s.request.frames),
                    latents=s.latents,
                    arrived=s.arrived,
                    resumed=s.resumed,
                )
            except (ExecutionFailed, Overloaded) as error:
                self._tell(Event(s.request.id, "failed", error=error))
            else:
                self._tell(admitted)
        for request_id in cancelled:
            self._loop.cancel(request_id)
            self._tell(
                Event(request_id, "failed", error=Cancelled(f"request {request_id} was cancelled"))
            )
        return True

    def _sleep(self) -> None:
        with self._wake:
            self._wake.wait_for(
                lambda: self._inbox or self._cancelled or self._questions or self._closing
            )

    def _tell(self, event: Event) -> None:
        with self._wake:
            ended = event.kind in ("done", "failed")
            take = self._listeners.pop if ended else self._listeners.get
            listener = take(event.request, None)
            if ended:
                self._running.discard(event.request)
            elif listener is not None and event.kind != "admitted":
                self._running.add(event.request)
        if listener is None:
            return
        try:
            listener(event)
        except Exception:
            # A listener is the caller's code; one that fails must not stop the pictures of others.
            log.exception("request %s: its listener failed on %r", event.request, event.kind)
