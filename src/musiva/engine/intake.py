"""What a user asks for, checked: the part of the engine that runs nothing."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor

from musiva.core.errors import InvalidInput
from musiva.core.pack import ROW_ALIGN
from musiva.core.types import Action, Level, Path, Request
from musiva.engine.actions import MOST_CUT
from musiva.engine.footprint import Footprint
from musiva.engine.pipeline import Pipeline
from musiva.engine.scheduler.prices import Tariff
from musiva.parallel import check_form
from musiva.policy import (
    POLICIES,
    Asks,
    Policy,
    PolicyClass,
    Trip,
    build_policy,
    levels_between,
    marked_as,
)

__all__ = ["LATENCIES", "Intake"]

log = logging.getLogger(__name__)
MAX_SEED = 2**63 - 1
MAX_DEADLINE = 86_400.0
MAX_PRIORITY = 100
MAX_FPS = 60.0
DEFAULT_TENANT = "default"
# Times what the dense run takes alone; None is no deadline.
LATENCIES: Mapping[str, float | None] = MappingProxyType(
    {"interactive": 1.5, "standard": 4.0, "relaxed": 16.0, "batch": None}
)


class Intake:
    """Makes requests for one model, and tells what follows from them. policies: that requests may
    name. tenants: that they may be of; None for any. tariff: what they will take. patches: as of
    `Trip`, of requests of which a level is low enough.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        tariff: Tariff,
        policies: Mapping[str, PolicyClass] = POLICIES,
        tenants: Sequence[str] | None = None,
        patches: int = 1,
    ) -> None:
        """Raises InvalidInput for patches that the model cannot have."""
        _whole("patches", patches, 1)
        check_form("patch", patches, pipeline.denoiser)
        self.pipeline = pipeline
        self.tariff = tariff
        self.footprint = Footprint(pipeline)
        self._policies = policies
        self._tenants = tenants
        self._patches = patches

    def request(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        guidance: float | None = None,
        num_images: int | None = None,
        quality: int | None = None,
        min_quality: int | None = None,
        max_quality: int | None = None,
        sampler: str | None = None,
        spacing: str | None = None,
        shift: float | None = None,
        previews: int = 0,
        policy: str | None = None,
        deadline: float | None = None,
        latency: str | None = None,
        priority: int | None = None,
        tenant: str | None = None,
        request_id: str | None = None,
    ) -> Request:
        """A checked request; None is the model's default, a random seed, one picture, no negative
        prompt, the dense run, no hurry.

        frames: of a clip; 1 is a picture. fps: of them a second, which changes none of them.
        quality: below 100, a PSNR against the dense run that 95 % of pictures keep
        (`musiva.policy.floor_db`), as cheaply as the model's calibration knows how. min_quality:
        the same, and with a larger max_quality more where there is time for it. previews: of each
        picture, up to one per evaluation but the last; they change no picture. policy: what is
        computed and what forecast, as `musiva.policy` names it; only at quality 100, since others
        choose it. deadline: seconds after it is submitted, by which all pictures have to be there;
        else it raises Overloaded then, if that can be foreseen. latency: a deadline by name, out of
        `LATENCIES`, times what the dense run takes alone. priority: what is higher goes first.

        Raises InvalidInput naming the first field that is not allowed, its value and what is.
        """
        defaults = self.pipeline.defaults
        size = defaults.size if size is None else _size(size)
        self.pipeline.check_size(size)
        frames = defaults.frames if frames is None else _whole("frames", frames, 1)
        self.pipeline.check_frames(frames)
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
        distilled = self.pipeline.distilled
        self.footprint.check(size, 2 if guidance > 1.0 and not distilled else 1, frames)
        path = Path(
            steps=defaults.steps if steps is None else _whole("steps", steps, 1, 1000),
            sampler=sampler,
            spacing=spacing,
            shift=self.pipeline.shift(size, frames) if shift is None else shift,
        )
        last = self.pipeline.schedule(path).num_evaluations - 1
        low, high = _qualities(quality, min_quality, max_quality)
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
            levels=self._levels(low, high, policy, path),
            previews=_whole("previews", previews, 0, last),
            deadline=_deadline(deadline),
            priority=_whole(
                "priority", 0 if priority is None else priority, -MAX_PRIORITY, MAX_PRIORITY
            ),
            tenant=self._tenant(DEFAULT_TENANT if tenant is None else tenant),
            distilled=distilled,
            frames=frames,
            fps=defaults.fps if fps is None else _number("fps", fps, 1.0, MAX_FPS),
        )
        self._check_policies(request)
        return self._with_latency(request, latency)

    @property
    def reach(self) -> tuple[str, ...]:
        """As of `Denoiser.reach`, of what makes the pictures."""
        return self.pipeline.denoiser.reach

    @property
    def out_of_reach(self) -> str:
        """Why `reach` is less than usual."""
        return self.pipeline.denoiser.out_of_reach

    def num_evaluations(self, request: Request) -> int:
        """Model evaluations that each picture of a request takes."""
        return self.pipeline.schedule(request.path).num_evaluations

    def rows_of(self, request: Request) -> int:
        """Packed rows of all branches of one picture of a request."""
        num_tokens = self.pipeline.num_tokens(request.size, request.frames)
        branch_rows = -(-num_tokens // ROW_ALIGN) * ROW_ALIGN
        return branch_rows * (2 if request.guided else 1)

    def policies_of(self, request: Request) -> tuple[Policy, ...]:
        """One for each level. Raises InvalidInput for one that is not there."""
        return tuple(build_policy(level.policy, self._policies) for level in request.levels)

    @property
    def policies(self) -> tuple[str, ...]:
        """Names that the policy of a request may begin with."""
        return tuple(name for name in self._policies if self._may_be(name))

    def seconds_alone(self, request: Request) -> float:
        """What the dense run of a request should take, if nothing else is there."""
        return self.tariff.alone(request, self.rows_of(request), self.num_evaluations(request))

    def trip_of(self, request: Request) -> Trip:
        """The path of each picture of a request, for its policies."""
        calibration, policies = self.pipeline.calibration, self.policies_of(request)
        tile = Asks.of(policies[0]).tile
        schedule = self.pipeline.schedule(request.path)
        trip = Trip.along(schedule, guided=request.guided, calibration=calibration)
        patches = self._patches if request.min_quality <= MOST_CUT else 1
        tiled = trip.tiled(self.pipeline.grid(request.size, request.frames), tile)
        return replace(tiled, patches=patches)

    def parameters(
        self, request: Request, index: int, actions: Sequence[Action] = ()
    ) -> dict[str, object]:
        """What gives picture `index` of a request again: a body for `POST /v1/images/generations`,
        as pictures carry it (`musiva.core.provenance`). actions: what was done, which of a request
        of several levels the picture depends on too.
        """
        path, quality = request.path, request.min_quality
        # A lower quality chooses the policy, again.
        policy = request.policy if quality == 100 else None
        if len(request.levels) > 1:
            quality, policy = 100, marked_as(actions) if actions else "never"
        moving = {}
        if self.pipeline.clips is not None:
            moving = {"frames": request.frames, "fps": request.fps}
        return {
            "model": self.pipeline.name,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "size": f"{request.size[0]}x{request.size[1]}",
            **moving,
            "steps": path.steps,
            "seed": request.seed + index,
            "guidance_scale": request.guidance,
            "quality": quality,
            "sampler": path.sampler or self.pipeline.noise.default_sampler(),
            "spacing": path.spacing,
            "shift": path.shift,
            "policy": policy,
        }

    def _levels(self, low: int, high: int, policy: str | None, path: Path) -> tuple[Level, ...]:
        if low == 100:
            return (Level("never" if policy is None else policy),)
        if policy is not None:
            allowed = "none beside a quality below 100, which chooses what is computed"
            raise InvalidInput("policy", policy, allowed)
        calibration = self.pipeline.calibration
        if calibration is None:
            allowed = "100: the model has no calibration; `musiva calibrate` makes it"
            raise InvalidInput("quality", low, allowed)
        return levels_between(low, high, calibration, path.steps)

    def _tenant(self, name: object) -> str:
        known = self._tenants
        if not isinstance(name, str) or (known is not None and name not in known):
            allowed = "a name" if known is None else ", ".join(known)
            raise InvalidInput("tenant", name, allowed)
        return name

    def _with_latency(self, request: Request, latency: str | None) -> Request:
        if latency is None:
            return request
        if latency not in LATENCIES:
            raise InvalidInput("latency", latency, ", ".join(LATENCIES))
        if request.deadline is not None:
            raise InvalidInput("latency", latency, "none beside a deadline")
        factor = LATENCIES[latency]
        if factor is None:
            return request
        return replace(request, deadline=factor * self.seconds_alone(request))

    def _check_policies(self, request: Request) -> None:
        """Raises InvalidInput for a policy that is not there, or that this request is not for."""
        policies, trip = self.policies_of(request), self.trip_of(request)
        for policy in policies:
            self._require_reach(request.policy, policy)
        try:
            for policy in policies:
                policy.begin(trip)
        except InvalidInput as error:
            raise InvalidInput("policy", request.policy, error.allowed) from error
        except (Exception, SystemExit) as error:
            # Told when the request is admitted, like all that a policy does wrong.
            log.debug("policy %s cannot begin: %r", request.policy, error)

    def _require_reach(self, spec: str, policy: Policy) -> None:
        """Raises InvalidInput for a policy that asks for what cannot be done with the model."""
        lacking = self._out_of_reach(policy)
        if lacking:
            possible = ", ".join(self.policies)
            why = f"the model has no {' and no '.join(lacking)}, since {self.out_of_reach}"
            allowed = f"{possible}: {why}"
            raise InvalidInput("policy", spec, allowed)

    def _out_of_reach(self, policy: Policy) -> list[str]:
        """What a policy asks for and the model has not."""
        lacking = [name for name in ("tiles", "gates") if name not in self.reach]
        if not lacking:
            return []
        asks = Asks.of(policy)
        wanted = {"tiles": asks.tile is not None, "gates": bool(asks.gates)}
        return [name for name in lacking if wanted[name]]

    def _may_be(self, name: str) -> bool:
        try:
            return not self._out_of_reach(build_policy(name, self._policies))
        except InvalidInput:
            return True  # one that needs fields, of which nothing is known yet

    def _checked_prompt(self, field: str, prompt: object, *, empty: bool = False) -> str:
        if not isinstance(prompt, str) or (not empty and not prompt.strip()):
            raise InvalidInput(field, prompt, "a text that is not empty")
        try:
            self.pipeline.text.tokenize(prompt)
        except InvalidInput as error:
            raise InvalidInput(field, prompt, error.allowed) from error
        return prompt

    def _check_latents(self, request: Request, latents: Sequence[Tensor]) -> None:
        shape = self.pipeline.latent_shape(request.size, request.frames)
        for i, latent in enumerate(latents):
            if tuple(latent.shape) != shape:
                raise InvalidInput(f"latents[{i}]", tuple(latent.shape), f"a tensor {list(shape)}")
        if len(latents) != request.num_images:
            raise InvalidInput("latents", len(latents), f"{request.num_images}, one per picture")


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


def _qualities(quality: object, low: object, high: object) -> tuple[int, int]:
    """Floor and ceiling. Raises InvalidInput."""
    if quality is not None:
        quality = _whole("quality", quality, 1, 100)
        for field, value in (("min_quality", low), ("max_quality", high)):
            if value not in (None, quality):
                raise InvalidInput(field, value, f"{quality}, as quality says, or absent")
        return quality, quality
    if low is None:
        if high is not None:
            raise InvalidInput("max_quality", high, "only beside a min_quality")
        return 100, 100
    low = _whole("min_quality", low, 1, 100)
    if high is None:
        return low, low
    high = _whole("max_quality", high, 1, 100)
    if high < low:
        raise InvalidInput("max_quality", high, f"from {low}, the min_quality, to 100")
    return low, high


def _deadline(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
        raise InvalidInput("deadline", value, "seconds from now; this is in the past")
    return _number("deadline", value, 0.0, MAX_DEADLINE)
