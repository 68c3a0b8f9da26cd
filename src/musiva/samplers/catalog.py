"""The samplers by name: which predictions and spacings each accepts, its grid and its solver."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from torch import Tensor

from musiva.core.errors import InvalidInput
from musiva.samplers.noise import NoiseModel, Prediction
from musiva.samplers.schedules import (
    DISCRETE_SPACINGS,
    FLOW_SPACINGS,
    SIGMA_SPACINGS,
    Grid,
    Schedule,
    ddim_grid,
    dpm_grid,
    flow_match_grid,
    unipc_grid,
)
from musiva.samplers.solvers import (
    Memory,
    Solver,
    as_computed,
    ddim,
    dpm_2m,
    euler,
    heun,
    unipc,
)

__all__ = ["SAMPLERS", "Sampler", "build_schedule", "initial_scale", "step"]

GridPlanner: TypeAlias = Callable[[NoiseModel, int, str, float], Grid]


def _once_a_step(steps: int) -> tuple[int, ...]:
    return tuple(range(steps))


def _twice_a_step(steps: int) -> tuple[int, ...]:
    """Every inner grid point is evaluated as the end of one step and the start of the next."""
    return tuple((evaluation + 1) // 2 for evaluation in range(2 * steps - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A grid and a solver under one name.

    spacings      prediction -> the names that `build_schedule(spacing=)` accepts, the default
                  first; a prediction that is no key does not fit the sampler
    grid          (noise, steps, spacing, shift) -> Grid
    solve         see `solvers.py`
    evaluations   steps -> for each model evaluation the grid point at which it happens
    """

    spacings: Mapping[Prediction, tuple[str, ...]]
    grid: GridPlanner
    solve: Solver
    evaluations: Callable[[int], tuple[int, ...]] = _once_a_step


_DPM_SPACINGS = (*DISCRETE_SPACINGS, *SIGMA_SPACINGS)
_DDIM_SPACINGS = ("leading", "trailing", "linspace")

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "euler": Sampler(spacings={"flow": FLOW_SPACINGS}, grid=flow_match_grid, solve=euler),
        "heun": Sampler(
            spacings={"flow": FLOW_SPACINGS},
            grid=flow_match_grid,
            solve=heun,
            evaluations=_twice_a_step,
        ),
        "dpm++2m": Sampler(
            spacings={
                "flow": ("uniform", *SIGMA_SPACINGS),
                "epsilon": _DPM_SPACINGS,
                "v_prediction": _DPM_SPACINGS,
            },
            grid=dpm_grid,
            solve=dpm_2m,
        ),
        "unipc": Sampler(spacings={"flow": ("uniform",)}, grid=unipc_grid, solve=unipc),
        "ddim": Sampler(
            spacings={"epsilon": _DDIM_SPACINGS, "v_prediction": _DDIM_SPACINGS},
            grid=ddim_grid,
            solve=ddim,
        ),
    }
)


def build_schedule(
    noise: NoiseModel,
    sampler: str | None,
    steps: int,
    *,
    spacing: str | None = None,
    shift: float | None = None,
    samplers: Mapping[str, Sampler] = SAMPLERS,
) -> Schedule:
    """Plan one sample's path.

    sampler    a key of `samplers`; None: the model's own
    steps      1 to 1000; fewer where the grid has too few integer timesteps
    spacing    None: the model's own if the sampler has it, else the sampler's default
    shift      flow models only, 0.01 to 100; None: the model's own
    samplers   `{**SAMPLERS, "mine": Sampler(...)}` adds a solver; hand the same mapping to `step`

    Raises `InvalidInput` for "sampler", "steps", "spacing" or "shift".
    """
    name = noise.default_sampler() if sampler is None else sampler
    fitting = [key for key, one in samplers.items() if noise.prediction in one.spacings]
    if name not in fitting:
        allowed = f"{', '.join(fitting)} (for a model with prediction {noise.prediction!r})"
        raise InvalidInput("sampler", sampler, allowed)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise InvalidInput("steps", steps, "an integer from 1 to 1000")
    chosen = samplers[name]
    grid = chosen.grid(noise, steps, _spacing(noise, name, chosen, spacing), _shift(noise, shift))
    points = chosen.evaluations(steps)
    return Schedule(
        sampler=name,
        prediction=noise.prediction,
        sigmas=tuple(sigma for _, sigma in grid.levels),
        alphas=tuple(alpha for alpha, _ in grid.levels),
        timesteps=tuple(float(grid.timesteps[point]) for point in points),
        points=points,
        landings=tuple(grid.landings),
        # At sigma 0 log(alpha / sigma) is infinite and only first order is defined.
        euler_at_final=noise.euler_at_final
        or (noise.lower_order_final and steps < 15)
        or grid.levels[-1][1] == 0.0,
        clip=noise.clip,
    )


def initial_scale(schedule: Schedule) -> float:
    """Multiply unit noise by it to get the first latent.

    In the representation x = alpha * x0 + sigma * eps the start of every path is unit noise itself,
    also where its first alpha is not quite zero: models are published, and sampled by diffusers,
    that way.
    """
    return 1.0


def step(
    schedule: Schedule,
    evaluation: int,
    x: Tensor,
    prediction: Tensor,
    memory: Memory,
    *,
    samplers: Mapping[str, Sampler] = SAMPLERS,
) -> tuple[Tensor, Memory]:
    """Advance a latent by one model evaluation; returns the next latent and the new memory.

    evaluation     0 .. schedule.num_evaluations - 1, in order
    x, prediction  the same shape, any; computed and returned in fp32 (fp64 from fp64)
    memory         () before the first evaluation, afterwards what the last call returned

    Pure: no input is modified, and equal inputs give equal bytes.
    """
    solve = samplers[schedule.sampler].solve
    return solve(schedule, evaluation, as_computed(x), as_computed(prediction), memory)


def _spacing(noise: NoiseModel, name: str, sampler: Sampler, spacing: str | None) -> str:
    offered = sampler.spacings[noise.prediction]
    if spacing is None:
        own = (noise.sigma_spacing, noise.timestep_spacing)
        return next((one for one in own if one in offered), offered[0])
    if spacing not in offered:
        allowed = f"{', '.join(offered)} (sampler {name!r}, prediction {noise.prediction!r})"
        raise InvalidInput("spacing", spacing, allowed)
    return spacing


def _shift(noise: NoiseModel, shift: float | None) -> float:
    if shift is None:
        return noise.shift
    if noise.prediction != "flow":
        allowed = f"only with flow models; this one has prediction {noise.prediction!r}"
        raise InvalidInput("shift", shift, allowed)
    number = isinstance(shift, int | float) and not isinstance(shift, bool)
    if not number or not math.isfinite(shift) or not 0.01 <= shift <= 100.0:
        raise InvalidInput("shift", shift, "a number from 0.01 to 100")
    return float(shift)
