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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from musiva.core.errors import Cancelled, ExecutionFailed, InvalidInput, Overloaded, Unavailable
from musiva.core.pack import ROW_ALIGN
from musiva.core.types import Event, Path, Request
from musiva.engine.executor import STORE_BYTES, InlineExecutor
from musiva.engine.loop import Observer, StepLoop
from musiva.engine.pipeline import Pipeline, load_pipeline
from musiva.engine.scheduler import Scheduler
from musiva.engine.stream import Stream
from musiva.policy import POLICIES, Asks, Policy, PolicyClass, Trip, build_policy, policy_keeping
from musiva.samplers import Schedule, build_schedule
from musiva.store import Figures

if TYPE_CHECKING:
    from musiva.client import RemoteEngine, Timeout

__all__ = ["Engine"]

log = logging.getLogger(__name__)
Listener = Callable[[Event], None]
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Submission:
    request: Request
    policy: Policy
    trip: Trip
    rows: int
    latents: Sequence[Tensor] | None
    listener: Listener


class Engine:
    """Text to pictures. Thread-safe; pictures of all callers are computed in shared packs.

        with Engine.load("default") as engine:
            pictures = engine.generate(["a fox"], size=(96, 96), seed=1)

    Closing it cancels whatever still runs; requests end with the event "failed" and `Cancelled`.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """max_waiting: most requests at a time, running ones included; one more raises
        Overloaded. policies: those that requests may name. store_bytes: budget of what gates and
        tiles keep.
        """

        scheduler: Scheduler.Config = field(default_factory=Scheduler.Config)
        max_waiting: int = 512
        policies: Mapping[str, PolicyClass] = field(default_factory=lambda: POLICIES)
        store_bytes: int = STORE_BYTES

    def __init__(
        self, pipeline: Pipeline, config: Config | None = None, *, observe: Observer | None = None
    ) -> None:
        self.pipeline = pipeline
        self.config = config or self.Config()
        self._executor = InlineExecutor(pipeline, store_bytes=self.config.store_bytes)
        self._loop = StepLoop(self._executor, self.config.scheduler.build(), observe)
        self._wake = threading.Condition()
        self._inbox: deque[Submission] = deque()
        self._cancelled: set[str] = set()
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

    def request(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        seed: int | None = None,
        guidance: float | None = None,
        num_images: int | None = None,
        quality: int = 100,
        sampler: str | None = None,
        spacing: str | None = None,
        shift: float | None = None,
        previews: int = 0,
        policy: str | None = None,
        request_id: str | None = None,
    ) -> Request:
        """A checked request; None is the model's default, a random seed, one picture, no negative
        prompt. quality: below 100, a PSNR against the dense run that 95 % of pictures keep
        (`musiva.policy.floor_db`), as cheaply as the model's calibration knows how. previews: of
        each picture, up to one per evaluation but the last; they change no picture. policy: what is
        computed and what forecast, as `musiva.policy` names it; only at quality 100, since others
        choose it.

        Raises InvalidInput naming the first field that is not allowed, its value and what is.
        """
        defaults = self.pipeline.defaults
        size = defaults.size if size is None else _size(size)
        self.pipeline.check_size(size)
        count = 1 if num_images is None else num_images
        count = _whole("num_images", count, 1, defaults.max_images)
        seed = (
            int.from_bytes(os.urandom(4), "big")
            if seed is None
            else _whole("seed", seed, 0, MAX_SEED - (count - 1))
        )
        guidance = (
            defaults.guidance if guidance is None else _number("guidance", guidance, 0.0, 100.0)
        )
        path = Path(
            steps=defaults.steps if steps is None else _whole("steps", steps, 1, 1000),
            sampler=sampler,
            spacing=spacing,
            shift=shift,
        )
        last = self._schedule(path).num_evaluations - 1
        quality = _whole("quality", quality, 1, 100)
        request = Request(
            id=request_id or uuid.uuid4().hex,
            prompt=self._checked_prompt("prompt", prompt),
            negative_prompt=self._checked_prompt(
                "negative_prompt", "" if negative_prompt is None else negative_prompt, empty=True
            ),
            size=size,
            path=path,
            seed=seed,
            guidance=guidance,
            num_images=count,
            quality=quality,
            previews=_whole("previews", previews, 0, last),
            policy=self._chosen_policy(quality, policy, path),
        )
        self._check_policy(request)
        return request

    def num_evaluations(self, request: Request) -> int:
        """Model evaluations that each picture of a request takes."""
        return self._schedule(request.path).num_evaluations

    def rows_of(self, request: Request) -> int:
        """Packed rows of all branches of one picture of a request."""
        branch_rows = -(-self.pipeline.num_tokens(request.size) // ROW_ALIGN) * ROW_ALIGN
        return branch_rows * (2 if request.guided else 1)

    def policy_of(self, request: Request) -> Policy:
        """Raises InvalidInput for a policy that is not there."""
        return build_policy(request.policy, self.config.policies)

    def trip_of(self, request: Request) -> Trip:
        """The path of each picture of a request, for its policy."""
        calibration, tile = self.pipeline.calibration, Asks.of(self.policy_of(request)).tile
        schedule = self._schedule(request.path)
        trip = Trip.along(schedule, guided=request.guided, calibration=calibration)
        return trip.tiled(self.pipeline.grid(request.size), tile)

    def parameters(self, request: Request, index: int) -> dict[str, object]:
        """What gives picture `index` of a request again: a body for `POST /v1/images/generations`,
        as pictures carry it (`musiva.core.provenance`).
        """
        path = request.path
        return {
            "model": self.pipeline.name,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "size": f"{request.size[0]}x{request.size[1]}",
            "steps": path.steps,
            "seed": request.seed + index,
            "guidance_scale": request.guidance,
            "quality": request.quality,
            "sampler": path.sampler or self.pipeline.noise.default_sampler(),
            "spacing": path.spacing,
            "shift": path.shift,
            # A lower quality chooses the policy, again.
            "policy": request.policy if request.quality == 100 else None,
        }

    def submit(
        self, request: Request, listener: Listener, *, latents: Sequence[Tensor] | None = None
    ) -> None:
        """Queue a request. `listener` is called in the engine's thread with each of its events; it
        must be quick and not raise. Raises Overloaded, Unavailable, or InvalidInput for latents
        that do not fit.
        """
        if latents is not None:
            self._check_latents(request, latents)
        # Here and not in the engine's thread, which whatever a user's class raises would stop.
        policy, trip = self.policy_of(request), self.trip_of(request)
        submission = Submission(request, policy, trip, self.rows_of(request), latents, listener)
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

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        latents: Sequence[Tensor] | None = None,
        **options: object,
    ) -> list[Image.Image]:
        """Pictures of all prompts, in order; `num_images` of each. Prompt i uses the same seed as
        prompt 0.

        latents: [C, H, W] each, one per picture, instead of the noise of the seed. Options are
        those of `request`. Raises InvalidInput, or what the first failed request failed of; the
        others are then cancelled.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            return []
        first = self.request(prompts[0], **options)  # type: ignore[arg-type]
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
        pictures: list[Image.Image] = []
        try:
            for stream in streams:
                by_index = {e.index: e.picture for e in stream if e.kind == "picture"}
                pictures += [Image.fromarray(by_index[i]) for i in range(count)]  # type: ignore[arg-type]
        finally:
            for stream in streams:
                stream.close()
        return pictures

    def _schedule(self, path: Path) -> Schedule:
        return build_schedule(
            self.pipeline.noise, path.sampler, path.steps, spacing=path.spacing, shift=path.shift
        )

    def _chosen_policy(self, quality: int, policy: str | None, path: Path) -> str:
        if quality == 100:
            return "never" if policy is None else policy
        if policy is not None:
            allowed = "none beside a quality below 100, which chooses what is computed"
            raise InvalidInput("policy", policy, allowed)
        calibration = self.pipeline.calibration
        if calibration is None:
            allowed = "100: the model has no calibration; `musiva calibrate` makes it"
            raise InvalidInput("quality", quality, allowed)
        return policy_keeping(quality, calibration, path.steps)

    def _check_policy(self, request: Request) -> None:
        """Raises InvalidInput for a policy that is not there, or that this request is not for."""
        policy, trip = self.policy_of(request), self.trip_of(request)
        try:
            policy.begin(trip)
        except InvalidInput as error:
            raise InvalidInput("policy", request.policy, error.allowed) from error
        except (Exception, SystemExit) as error:
            # Told when the request is admitted, like all that a policy does wrong.
            log.debug("policy %s cannot begin: %r", request.policy, error)

    def _checked_prompt(self, field: str, prompt: object, *, empty: bool = False) -> str:
        if not isinstance(prompt, str) or (not empty and not prompt.strip()):
            raise InvalidInput(field, prompt, "a text that is not empty")
        try:
            self.pipeline.text.tokenize(prompt)
        except InvalidInput as error:
            raise InvalidInput(field, prompt, error.allowed) from error
        return prompt

    def _check_latents(self, request: Request, latents: Sequence[Tensor]) -> None:
        shape = self.pipeline.latent_shape(request.size)
        for i, latent in enumerate(latents):
            if tuple(latent.shape) != shape:
                raise InvalidInput(f"latents[{i}]", tuple(latent.shape), f"a tensor {list(shape)}")
        if len(latents) != request.num_images:
            raise InvalidInput("latents", len(latents), f"{request.num_images}, one per picture")

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
        for request_id in left:
            reason = (
                Unavailable(f"the engine stopped: {self._broken}")
                if self._broken
                else Cancelled("closed")
            )
            self._tell(Event(request_id, "failed", error=reason))

    def _take_in(self) -> bool:
        """Move submissions and cancellations into the loop; False when the engine is closing."""
        with self._wake:
            arrived, cancelled = list(self._inbox), set(self._cancelled)
            self._inbox.clear()
            self._cancelled.clear()
            if self._closing:
                return False
        for s in arrived:
            if s.request.id in cancelled:
                continue
            try:
                self._loop.submit(
                    s.request,
                    policy=s.policy,
                    trip=s.trip,
                    rows=s.rows,
                    latents=s.latents,
                )
            except ExecutionFailed as error:
                self._tell(Event(s.request.id, "failed", error=error))
        for request_id in cancelled:
            self._loop.cancel(request_id)
            self._tell(
                Event(request_id, "failed", error=Cancelled(f"request {request_id} was cancelled"))
            )
        return True

    def _sleep(self) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._inbox or self._cancelled or self._closing)

    def _tell(self, event: Event) -> None:
        with self._wake:
            ended = event.kind in ("done", "failed")
            take = self._listeners.pop if ended else self._listeners.get
            listener = take(event.request, None)
            if ended:
                self._running.discard(event.request)
            elif listener is not None:
                self._running.add(event.request)
        if listener is None:
            return
        try:
            listener(event)
        except Exception:
            # A listener is the caller's code; one that fails must not stop the pictures of others.
            log.exception("request %s: its listener failed on %r", event.request, event.kind)


def _whole(field: str, value: object, low: int, high: int | None = None) -> int:
    allowed = f"a whole number from {low}" + (f" to {high}" if high is not None else "")
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < low
        or (high is not None and value > high)
    ):
        raise InvalidInput(field, value, allowed)
    return value


def _size(value: object) -> tuple[int, int]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InvalidInput("size", value, "(width, height) in pixels")
    return _whole("size", value[0], 1), _whole("size", value[1], 1)


def _number(field: str, value: object, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidInput(field, value, f"a number from {low:g} to {high:g}")
    return float(value)
