"""What the calibrated forecast is made of, from runs: moments, correction, usual error.

The three parts are explained in `musiva.policy.kriging`. B bands, P places, R = 3 values, F = 3
shapes of the correction.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor

from musiva.perf.calibration.runs import Gap, Prompts
from musiva.policy import (
    EDGES,
    Calibration,
    Conditions,
    Kriging,
    bands_of,
    shape_of_correction,
    shape_of_surprise,
)

__all__ = ["ROUNDS", "correct", "moments"]

# The correction changes the runs that it is fitted to; after so many rounds it stays.
ROUNDS = 3
RUNS_PER_ROUND = 16
PROMPTS_PER_RUN = 12
# Mean gaps of the runs, as shares of the path; each gap is off by up to 30 %.
GAPS = (0.1, 0.12, 0.14, 0.16, 0.18, 0.2)
RIDGE = 1e-4


def moments(
    runs: Prompts, conditions: Conditions, *, batch: int = 8
) -> Iterator[tuple[list[list[Tensor]], Calibration]]:
    """Dense runs of all prompts, batch by batch: the latents of the batch at every evaluation and
    at the end, and a calibration without correction by all prompts up to then.
    """
    schedule, count = runs.schedule, len(runs.prompts)
    places = tuple(map(schedule.place, range(schedule.num_evaluations)))
    sums, coefficients = torch.zeros(()), 0
    for first in range(0, count, batch):
        samples = range(first, min(first + batch, count))
        latents, values = runs.dense(samples)
        bands = bands_of(runs.grid, runs.pipeline.denoiser.patch, EDGES, latents[0][0].device)
        for x, v in zip(latents, values, strict=True):
            sums = sums + bands.products(bands.analyse(*x[:-1], *v)).cpu()
            coefficients += x[0].numel()
        yield (
            latents,
            Calibration(
                places=places,
                edges=EDGES,
                moments=_filled(sums / coefficients).float(),
                correction=torch.zeros(len(EDGES) + 1, 3, 3),
                surprise=(0.0, 0.0, 0.0, 0.0),
                conditions=conditions,
            ),
        )


def _filled(moments_BNN: Tensor) -> Tensor:
    """A band that a small picture has no frequencies of gets the next lower one's."""
    bands = list(moments_BNN)
    for band in range(1, len(bands)):
        if not bool(bands[band].any()):
            bands[band] = bands[band - 1]
    return torch.stack(bands)


def correct(
    runs: Prompts, dense: Sequence[Sequence[Tensor]], calibration: Calibration, *, seed: int = 0
) -> Iterator[Calibration]:
    """The calibration after each round of runs with forecasts. dense: latents of the dense runs, by
    sample and evaluation.
    """
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        kriging = Kriging(calibration, runs.pipeline.denoiser.patch)
        fit, surprises = _Fit(runs, kriging, len(calibration.edges) + 1), _Surprises(runs)
        for _ in range(RUNS_PER_ROUND):
            count = min(PROMPTS_PER_RUN, len(runs.prompts))
            samples = rng.sample(range(len(runs.prompts)), count)
            gaps = runs.forecast(samples, _some_evaluations(runs, rng), kriging)
            for _, alike in groupby(gaps, key=attrgetter("start")):
                same = list(alike)
                fit.add(same, [dense[gap.sample][gap.stop] - gap.landed for gap in same])
                for gap in same:
                    surprises.add(gap, calibration)
        calibration = replace(
            calibration,
            correction=fit.solve(calibration.correction),
            surprise=surprises.solve(),
        )
        yield calibration


def _some_evaluations(runs: Prompts, rng: random.Random) -> list[int]:
    total = runs.schedule.num_evaluations
    mean, found = rng.choice(GAPS) * total, [0]
    while True:
        following = found[-1] + max(round(mean * rng.uniform(0.7, 1.3)), 1)
        if following > total - max(round(0.06 * total), 1):
            return found
        found.append(following)


class _Fit:
    """Least squares of what the forecasts of a gap left between the latent that it landed at and
    the dense run's, per band. A gap counts by the inverse of how far off all its samples were; by
    each one's own, a sample that is right by chance would outweigh the others.
    """

    def __init__(self, runs: Prompts, kriging: Kriging, num_bands: int) -> None:
        self._runs, self._kriging = runs, kriging
        self._normal_BNN = torch.zeros(num_bands, 9, 9, dtype=torch.float64)
        self._wanted_BN = torch.zeros(num_bands, 9, dtype=torch.float64)

    def add(self, gaps: Sequence[Gap], missing: Sequence[Tensor]) -> None:
        """The same gap of some samples, and [L, C] of each that is missing where it landed."""
        shape_F = self._shape(gaps[0])
        if not bool(shape_F.any()):
            return
        products_BNN = torch.stack(
            [self._products(gap, x_LC) for gap, x_LC in zip(gaps, missing, strict=True)]
        ).sum(0)
        weight_B = 1 / (products_BNN[:, 3, 3] + 1e-9)
        outer_FF = shape_F[:, None] * shape_F[None]
        normal_BRRFF = products_BNN[:, :3, :3, None, None] * outer_FF
        wanted_BRF = products_BNN[:, :3, 3, None] * shape_F
        self._normal_BNN += weight_B[:, None, None] * normal_BRRFF.transpose(2, 3).reshape(-1, 9, 9)
        self._wanted_BN += weight_B[:, None] * wanted_BRF.reshape(-1, 9)

    def _products(self, gap: Gap, missing_LC: Tensor) -> Tensor:
        """[B, 4, 4]: of the R values that a gap was forecast from, and of what is missing."""
        bands = self._kriging.bands(self._runs.grid, missing_LC.device)
        missing, latent, *values = gap.anchors.spectra(bands, missing_LC)
        places = gap.anchors.places
        slope = torch.zeros_like(latent)
        if len(values) > 1:
            slope = (values[0] - values[1]) * (1 / (places[1] - places[0]))
        return bands.products([latent, values[0], slope, missing]).cpu()

    def solve(self, before_BRF: Tensor) -> Tensor:
        """[B, R, F]: the correction, of which `before` was in force."""
        diagonal_BN = self._normal_BNN.diagonal(dim1=1, dim2=2)
        ridge_BNN = torch.diag_embed(RIDGE * diagonal_BN + 1e-12)
        # What is missing comes on top of the correction in force.
        change_BN = torch.linalg.solve(self._normal_BNN + ridge_BNN, self._wanted_BN)
        return (before_BRF.double() + change_BN.view_as(before_BRF)).float()

    def _shape(self, gap: Gap) -> Tensor:
        """[F]: by how much the landing moves with each coefficient."""
        places = [self._runs.schedule.place(at) for at in range(gap.start, gap.stop)]
        places_P = torch.tensor(places, dtype=torch.float64)
        # The first is computed, and nothing is gone by then.
        shapes_FP = shape_of_correction(places[0], places_P)
        return shapes_FP @ self._runs.responses(gap.start, gap.stop)


class _Surprises:
    """Least squares of the logarithm of how wrong forecasts were."""

    def __init__(self, runs: Prompts) -> None:
        self._runs = runs
        self._shapes: list[tuple[float, ...]] = []
        self._logs: list[float] = []

    def add(self, gap: Gap, calibration: Calibration) -> None:
        if gap.surprise is None or gap.before is None:
            return
        time, place = calibration.time, self._runs.schedule.place
        self._shapes.append(shape_of_surprise(time(place(gap.before)), time(place(gap.start))))
        self._logs.append(math.log(max(gap.surprise, 1e-12)))

    def solve(self) -> tuple[float, ...]:
        shapes_NS = torch.tensor(self._shapes, dtype=torch.float64)
        logs_N1 = torch.tensor(self._logs, dtype=torch.float64)[:, None]
        return tuple(torch.linalg.lstsq(shapes_NS, logs_N1).solution[:, 0].tolist())
