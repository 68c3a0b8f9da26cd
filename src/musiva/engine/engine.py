"""The engine as users hold it: one model, one loop in a thread of its own, any number of
callers.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from PIL import Image
from torch import Tensor

from musiva.core.clip import Clip, shown
from musiva.core.errors import Cancelled, ExecutionFailed, InvalidInput, Overloaded, Unavailable
from musiva.core.types import Event, Request
from musiva.engine.executor import STORE_BYTES, InlineExecutor
from musiva.engine.intake import Intake
from musiva.engine.load import load_pipeline
from musiva.engine.loop import Observer, StepLoop
from musiva.engine.pipeline import Pipeline
from musiva.engine.scheduler import Scheduler
from musiva.engine.standing import Estimate, Standing
from musiva.engine.stream import Stream
from musiva.policy import POLICIES, Policy, PolicyClass, Trip
from musiva.store import Figures

if TYPE_CHECKING:
    from musiva.client import RemoteEngine, Timeout

__all__ = ["Engine"]

log = logging.getLogger(__name__)
Listener = Callable[[Event], None]
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


class Engine(Intake):
    """Text to pictures. Thread-safe; pictures of all callers are computed in shared packs.

        with Engine.load("default") as engine:
            pictures = engine.generate(["a fox"], size=(96, 96), seed=1)

    Closing it cancels whatever still runs; requests end with the event "failed" and `Cancelled`.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """max_waiting: most requests at a time, running ones included; one more raises
        Overloaded. policies: those that requests may name. tenants: that they may be of; None for
        any. store_bytes: budget of what gates and tiles keep.
        """

        scheduler: Scheduler.Config = field(default_factory=Scheduler.Config)
        max_waiting: int = 512
        policies: Mapping[str, PolicyClass] = field(default_factory=lambda: POLICIES)
        tenants: Sequence[str] | None = None
        store_bytes: int = STORE_BYTES

    def __init__(
        self, pipeline: Pipeline, config: Config | None = None, *, observe: Observer | None = None
    ) -> None:
        self.config = config or self.Config()
        scheduler = self.config.scheduler.build()
        super().__init__(
            pipeline,
            tariff=scheduler.tariff,
            policies=self.config.policies,
            tenants=self.config.tenants,
        )
        self._executor = InlineExecutor(pipeline, store_bytes=self.config.store_bytes)
        self._loop = StepLoop(self._executor, scheduler, observe)
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
        config: Config | None = None,
        *,
        dtype: str = "float32",
        device: str = "auto",
        observe: Observer | None = None,
    ) -> Engine:
        """A shipped model by name, or a diffusers directory. `observe` gets every plan and its
        result. Raises UnknownModel, BadCheckpoint, InvalidInput.
        """
        return cls(load_pipeline(model, dtype=dtype, device=device), config, observe=observe)

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

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self, timeout: float | None = None) -> None:
        """Cancel all requests and end the thread when its current step ends. May be repeated.

        timeout: seconds after which to return all the same; the thread then ends by itself.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)

    def check(self) -> None:
        """Raise Unavailable if the engine was closed, or stopped by an error."""
        if self._closing or self._broken:
            raise Unavailable(f"the engine is closed{f': {self._broken}' if self._broken else ''}")

    def submit(
        self, request: Request, listener: Listener, *, latents: Sequence[Tensor] | None = None
    ) -> None:
        """Queue a request. `listener` is called in the engine's thread with each of its events; it
        must be quick and not raise. The first one is "admitted", or "failed" with Overloaded where
        a deadline cannot be kept. Raises Overloaded, Unavailable, or InvalidInput for latents that
        do not fit.
        """
        if latents is not None:
            self._check_latents(request, latents)
        # Here and not in the engine's thread, which whatever a user's class raises would stop.
        policies, trip = self.policies_of(request), self.trip_of(request)
        submission = Submission(
            request, policies, trip, self.rows_of(request), latents, listener, self._loop.clock()
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
        """Stop a request when the current step ends; it gets the event "failed" with Cancelled.
        Unknown ids pass.
        """
        with self._wake:
            if request_id in self._listeners:
                self._cancelled.add(request_id)
                self._wake.notify()

    def standing(self) -> Standing:
        """How it stands: what waits, and what became of the pictures of the last minute. Waits for
        the current step. Raises Unavailable.
        """
        return self._asked(lambda: self._loop.standing())

    def estimates(self, request: Request) -> list[Estimate]:
        """What a request would get that came now, with each of its levels as its floor, the most
        exact first. Waits for the current step. Raises Unavailable.
        """
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
        """Requests that have not ended."""
        return len(self._listeners)

    @property
    def num_running(self) -> int:
        """Those of them of which a picture has been begun."""
        return len(self._running)

    @property
    def store_figures(self) -> Figures:
        """Of what gates and tiles keep, after the last step."""
        return self._executor.store_figures

    def num_before(self, request_id: str) -> int | None:
        """Requests that came before it and have not ended; None once it runs, or has ended."""
        with self._wake:
            if request_id in self._running or request_id not in self._listeners:
                return None
            return list(self._listeners).index(request_id)

    def stream(
        self, prompt: str, *, latents: Sequence[Tensor] | None = None, **options: object
    ) -> Stream:
        """Events of one request up to "done". Options are those of `request`. Raises what the
        request failed of; leaving the loop early cancels it.
        """
        return Stream(self, self.request(prompt, **options), latents)  # type: ignore[arg-type]

    @overload
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        frames: None = None,
        latents: Sequence[Tensor] | None = None,
        **options: object,
    ) -> list[Image.Image]: ...

    @overload
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        frames: int,
        latents: Sequence[Tensor] | None = None,
        **options: object,
    ) -> list[Image.Image] | list[Clip]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        frames: int | None = None,
        latents: Sequence[Tensor] | None = None,
        **options: object,
    ) -> list[Image.Image] | list[Clip]:
        """Pictures of all prompts, in order; `num_images` of each. Prompt i uses the same seed as
        prompt 0.

        frames: of clips, where it is more than 1; None is the model's default, so that a model of
        clips gives clips. latents: one per picture, instead of the noise of the seed: [C, H, W]
        each, or as the class of the model has clips. Options are those of `request`. Raises
        InvalidInput, or what the first failed request failed of; the others are then cancelled.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            return []
        first = self.request(prompts[0], frames=frames, **options)  # type: ignore[arg-type]
        requests = [
            replace(
                first, id=uuid.uuid4().hex, prompt=self._checked_prompt(f"prompts[{i}]", prompt)
            )
            for i, prompt in enumerate(prompts)
        ]
        count = first.num_images
        if latents is not None and len(latents) != count * len(requests):
            raise InvalidInput("latents", len(latents), f"{count * len(requests)}, one per picture")
        parts = [
            None if latents is None else latents[i * count : (i + 1) * count]
            for i in range(len(requests))
        ]
        streams = [
            Stream(self, request, part) for request, part in zip(requests, parts, strict=True)
        ]
        pictures: list[Any] = []
        try:
            for stream in streams:
                by_index = {e.index: e.picture for e in stream if e.kind == "picture"}
                pictures += [shown(by_index[i], first.fps) for i in range(count)]  # type: ignore[arg-type]
        finally:
            for stream in streams:
                stream.close()
        return pictures

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
