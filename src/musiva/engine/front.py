"""What callers hold, wherever pictures are made: requests in, events out."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, overload

from PIL import Image
from torch import Tensor

from musiva.comm import LinkFigures
from musiva.core.clip import Clip, shown
from musiva.core.errors import InvalidInput
from musiva.core.types import Event, Request
from musiva.engine.executor import STORE_BYTES
from musiva.engine.intake import Intake
from musiva.engine.pipeline import Pipeline
from musiva.engine.scheduler import Scheduler
from musiva.engine.scheduler.prices import Tariff
from musiva.engine.standing import Estimate, Standing, WorkerStanding
from musiva.engine.stream import Stream
from musiva.policy import POLICIES, PolicyClass
from musiva.store import Cache, CacheFigures, Figures

__all__ = ["Front", "Listener"]

Listener = Callable[[Event], None]


class Front(Intake, ABC):
    """Text to pictures. Thread-safe.

    Closing it cancels whatever still runs; requests end with the event "failed" and `Cancelled`.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """max_waiting: most requests at a time, running ones included; one more raises
        Overloaded. policies: those that requests may name. tenants: that they may be of; None for
        any. store_bytes: budget of what gates, tiles and patches keep. patches: parts into which
        the tokens of pictures of a low quality (`actions.MOST_CUT`) are cut, each of which sees
        what the others were an evaluation before; a fleet has it from its workers. cache: of what
        was computed before; None for none.
        """

        scheduler: Scheduler.Config = field(default_factory=Scheduler.Config)
        max_waiting: int = 512
        policies: Mapping[str, PolicyClass] = field(default_factory=lambda: POLICIES)
        tenants: Sequence[str] | None = None
        store_bytes: int = STORE_BYTES
        cache: Cache.Config | None = None
        patches: int = 1

    def __init__(self, pipeline: Pipeline, config: Config | None, tariff: Tariff) -> None:
        self.config = config or self.Config()
        super().__init__(
            pipeline,
            tariff=tariff,
            policies=self.config.policies,
            tenants=self.config.tenants,
            patches=self.config.patches,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def close(self, timeout: float | None = None) -> None:
        """Cancel all requests and end when current steps end. May be repeated.

        timeout: seconds after which to return all the same; what is left then ends by itself.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise Unavailable if it was closed, or stopped by an error."""

    @abstractmethod
    def submit(
        self, request: Request, listener: Listener, *, latents: Sequence[Tensor] | None = None
    ) -> None:
        """Queue a request. `listener` is called in a thread of the engine with each of its events;
        it must be quick and not raise. The first one is "admitted", or "failed" with Overloaded
        where a deadline cannot be kept. Raises Overloaded, Unavailable, or InvalidInput for latents
        that do not fit.
        """

    @abstractmethod
    def cancel(self, request_id: str) -> None:
        """Stop a request when the current step ends; it gets the event "failed" with Cancelled.
        Unknown ids pass.
        """

    @abstractmethod
    def standing(self) -> Standing:
        """How it stands: what waits, and what became of the pictures of the last minute. Waits for
        the current step. Raises Unavailable.
        """

    @abstractmethod
    def estimates(self, request: Request) -> list[Estimate]:
        """What a request would get that came now, with each of its levels as its floor, the most
        exact first. Waits for the current step. Raises Unavailable.
        """

    @property
    @abstractmethod
    def num_waiting(self) -> int:
        """Requests that have not ended."""

    @property
    @abstractmethod
    def num_running(self) -> int:
        """Those of them of which a picture has been begun."""

    @property
    @abstractmethod
    def store_figures(self) -> Figures:
        """Of what gates and tiles keep, after the last step."""

    @property
    def cache_figures(self) -> CacheFigures | None:
        """Of the cache of what was computed before; None without one."""
        return None

    @property
    def links(self) -> Sequence[LinkFigures]:
        """Of what it runs itself, to other ranks and hosts."""
        return ()

    @abstractmethod
    def num_before(self, request_id: str) -> int | None:
        """Requests that came before it and have not ended; None once it runs, or has ended."""

    def members(self) -> list[WorkerStanding]:
        """How each of its workers stands, in order; none where it has no workers. Waits for
        nobody.
        """
        return []

    def drain(self, number: int) -> None:
        """Let what a worker has go on elsewhere when its step ends, and end it then; a new one
        takes its place. Raises InvalidInput for a worker that is not there, Unavailable where it is
        not ready, or nobody else is.
        """
        raise InvalidInput("worker", number, "none: this engine has no workers")

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
