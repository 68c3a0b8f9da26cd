"""The path of one sample through noise levels, planned on the host before the first step.

Each sampler takes its grid from the diffusers scheduler of the same name, so that a published
checkpoint makes the picture it was published with. Grid points are fp32 numbers and timesteps carry
the same bits as theirs: a timestep near 1000 that is off by one unit in the last place already
moves a sinusoidal embedding by 6e-5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from musiva.core.errors import InvalidInput
from musiva.samplers.noise import NoiseModel, Prediction

__all__ = [
    "DISCRETE_SPACINGS",
    "FLOW_SPACINGS",
    "SIGMA_SPACINGS",
    "Grid",
    "Schedule",
    "ddim_grid",
    "dpm_grid",
    "flow_match_grid",
    "unipc_grid",
]

Array: TypeAlias = npt.NDArray[np.floating]

SIGMA_SPACINGS = ("karras", "exponential")
# "even": equal steps from 1 to 1 / steps before the shift, as pipelines after FLUX ask for.
FLOW_SPACINGS = ("uniform", "even", *SIGMA_SPACINGS)
DISCRETE_SPACINGS = ("linspace", "leading", "trailing")
BELOW_NOISE = 1e-6


@dataclass(frozen=True, slots=True)
class Schedule:
    """One sample's whole path. Hashable, and JSON-able by `dataclasses.asdict`.

    sigmas, alphas   steps + 1 grid points, from the most noise to the least: x = alpha * x0 + sigma
                     * eps
    timesteps        one per model evaluation: what the denoiser receives
    points           one per model evaluation: the grid point at which it happens
    landings         one (alpha, sigma) per step: where the step puts the latent. This is the next
                     grid point, except with DDIM, whose published scheduler strides by
                     `num_train_timesteps // steps` whatever the grid.
    euler_at_final   dpm++2m takes its last step at first order
    clip             bound of the estimated clean sample, None for latent models
    """

    sampler: str
    prediction: Prediction
    sigmas: tuple[float, ...]
    alphas: tuple[float, ...]
    timesteps: tuple[float, ...]
    points: tuple[int, ...]
    landings: tuple[tuple[float, float], ...]
    euler_at_final: bool
    clip: float | None

    @property
    def num_steps(self) -> int:
        return len(self.landings)

    @property
    def num_evaluations(self) -> int:
        """Model evaluations of the whole path: `num_steps`, with heun `2 * num_steps - 1`."""
        return len(self.timesteps)

    def level(self, evaluation: int) -> tuple[float, float]:
        """(alpha, sigma) of the latent that the denoiser receives at this evaluation."""
        point = self.points[evaluation]
        return self.alphas[point], self.sigmas[point]

    def place(self, evaluation: int) -> float:
        """Where on the path an evaluation is, the abscissa of forecasts: the share of noise in the
        latent, from 1 to 0.
        """
        alpha, sigma = self.level(evaluation)
        return sigma / (alpha + sigma)


@dataclass(frozen=True, slots=True)
class Grid:
    """steps + 1 levels (alpha, sigma), a timestep for each but the last, and the landings."""

    levels: Sequence[tuple[float, float]]
    timesteps: Sequence[float]
    landings: Sequence[tuple[float, float]]


def flow_match_grid(noise: NoiseModel, steps: int, spacing: str, shift: float) -> Grid:
    """Flow matching, from pure noise to sigma 0, as FlowMatchEuler/HeunDiscreteScheduler.

    The shift (Esser et al. 2024, arXiv 2403.03206) acts twice, on the smallest sigma and then on
    the grid; published pictures depend on it.
    """
    count = noise.num_train_timesteps
    if spacing == "even":
        whole = np.linspace(1.0, 1.0 / steps, steps).astype(np.float32)
        sigmas = _stretched(_shifted(whole, shift), noise.shift_terminal)
        return _flow_grid(np.minimum(sigmas, 1), count)
    largest, smallest = _shifted(np.array([count, 1], np.float32) / np.float32(count), shift)
    even = np.linspace(float(largest) * count, float(smallest) * count, steps) / count
    sigmas = _stretched(_shifted(even, shift), noise.shift_terminal)
    # A few shifts (0.66, 1.32, ...) round the first sigma above 1, where diffusers leaves it.
    return _flow_grid(np.minimum(_respaced(sigmas, steps, spacing), 1), count)


def _flow_grid(sigmas: Array, count: int) -> Grid:
    sigmas = sigmas.astype(np.float32)
    timesteps = (sigmas * np.float32(count)).tolist()
    return _consecutive(_flow_levels([*sigmas.tolist(), 0.0]), timesteps)


def dpm_grid(noise: NoiseModel, steps: int, spacing: str, shift: float) -> Grid:
    """Integer timesteps for every kind of prediction, as DPMSolverMultistepScheduler."""
    count = noise.num_train_timesteps
    if noise.prediction == "flow":
        even = 1.0 - np.linspace(1.0, 1.0 / count, steps + 1)
        sigmas = _respaced(np.flip(_shifted(even, shift))[:-1], steps, spacing)
        timesteps = (sigmas * count).astype(np.int64).tolist()
        return _consecutive(_flow_levels([*sigmas.astype(np.float32).tolist(), 0.0]), timesteps)

    table = noise.alphas_cumprod()
    if noise.rescale_betas_zero_snr:
        table[-1] = 2.0**-24  # a finite log(alpha / sigma) at the first step
    ratios = ((1 - table) / table) ** 0.5
    if spacing in SIGMA_SPACINGS:
        path = _respaced(ratios[::-1], steps, spacing)
        timesteps = np.interp(np.log(path), np.log(ratios), np.arange(count))
        if spacing == "karras" and noise.beta_schedule != "squaredcos_cap_v2":
            timesteps = timesteps.round()
        timesteps = timesteps.astype(np.int64)
    else:
        kept = count - int(np.searchsorted(-np.log(ratios[::-1]), noise.lambda_min_clipped))
        timesteps = _integer_timesteps(noise, steps, spacing, kept, points=steps + 1)
        path = ratios[timesteps]
    last = float(ratios[0]) if noise.final_sigmas_type == "sigma_min" else 0.0
    path = [*path.astype(np.float32).tolist(), last]
    levels = [(1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)) for ratio in path]
    return _consecutive(levels, timesteps.tolist())


def unipc_grid(noise: NoiseModel, steps: int, spacing: str, shift: float) -> Grid:
    """Flow matching, as UniPCMultistepScheduler: it begins just below pure noise, of which
    log(alpha / sigma) is not finite.
    """
    count = noise.num_train_timesteps
    sigmas = _shifted(np.linspace(1.0, 1.0 / count, steps + 1)[:-1], shift)
    if abs(sigmas[0] - 1.0) < BELOW_NOISE:
        sigmas[0] -= BELOW_NOISE
    timesteps = (sigmas * count).astype(np.int64).tolist()
    return _consecutive(_flow_levels([*sigmas.astype(np.float32).tolist(), 0.0]), timesteps)


def ddim_grid(noise: NoiseModel, steps: int, spacing: str, shift: float) -> Grid:
    """Integer timesteps, as DDIMScheduler; `shift` does not apply."""
    count = noise.num_train_timesteps
    timesteps = _integer_timesteps(noise, steps, spacing, count, points=steps).tolist()
    table = noise.alphas_cumprod().astype(np.float64)
    final = 1.0 if noise.set_alpha_to_one else table[0]

    def level(timestep: int) -> tuple[float, float]:
        squared = float(table[timestep] if timestep >= 0 else final)
        return math.sqrt(squared), math.sqrt(1 - squared)

    landings = [level(timestep - count // steps) for timestep in timesteps]
    return Grid([*map(level, timesteps), landings[-1]], timesteps, landings)


def _integer_timesteps(
    noise: NoiseModel, steps: int, spacing: str, kept: int, *, points: int
) -> npt.NDArray[np.int64]:
    """`steps` decreasing training timesteps (Lin et al. 2023, arXiv 2305.08891, table 2).

    kept     training timesteps below it may be used
    points   the grid that is divided evenly: dpm++2m counts the end point (steps + 1), DDIM does
             not (steps)
    """
    count = noise.num_train_timesteps
    if spacing == "linspace":
        path = np.linspace(0, kept - 1, points).round()[::-1][:steps]
    elif spacing == "leading":
        path = (np.arange(points) * (kept // points))[::-1][:steps] + noise.steps_offset
    else:
        # At some step counts rounding lets arange give one point too many, timestep -1: cut off.
        path = np.arange(kept, 0, -count / steps).round()[:steps] - 1
    if len(path) < steps or np.any(np.diff(path) >= 0) or path[0] >= count or path[-1] < 0:
        raise InvalidInput(
            "steps",
            steps,
            f"1 to 1000, if each has its own timestep in 0..{count - 1} ({spacing} spacing)",
        )
    return path.astype(np.int64)


def _shifted(sigmas: Array, shift: float) -> Array:
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def _stretched(sigmas: Array, terminal: float) -> Array:
    """The same, with `terminal` for the last; a single step is all the way and stays."""
    clean = 1 - sigmas
    if not terminal or clean[-1] <= 0:
        return sigmas
    return 1 - clean / (clean[-1] / (1 - terminal))


def _respaced(sigmas: Array, steps: int, spacing: str) -> Array:
    """The same ends, other points between.

    "karras": even in sigma**(1/7) (Karras et al. 2022, arXiv 2206.00364, eq. 5); "exponential":
    even in log(sigma); else the grid itself.
    """
    largest, smallest = float(sigmas[0]), float(sigmas[-1])
    if spacing == "karras":
        low, high = smallest ** (1 / 7), largest ** (1 / 7)
        return (high + np.linspace(0, 1, steps) * (low - high)) ** 7
    if spacing == "exponential":
        return np.exp(np.linspace(math.log(largest), math.log(smallest), steps))
    return sigmas


def _flow_levels(sigmas: list[float]) -> list[tuple[float, float]]:
    return [(1.0 - sigma, sigma) for sigma in sigmas]


def _consecutive(levels: list[tuple[float, float]], timesteps: list[float]) -> Grid:
    return Grid(levels, timesteps, levels[1:])
