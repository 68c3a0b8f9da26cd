"""What tolerances give against the dense run, with the policy that keeps promises."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from musiva.engine import Engine
from musiva.engine.pipeline import Pipeline
from musiva.perf.quality import psnr, ssim
from musiva.policy import Measured, promising

if TYPE_CHECKING:
    from musiva.perf.calibration import Plan

__all__ = ["TOLERANCES", "kept_by_most", "measure"]

TOLERANCES = (0.05, 0.07, 0.09, 0.11, 0.125, 0.14, 0.165, 0.2, 0.28)
# The share of pictures that may miss what is promised, and how sure it is that no more do.
MISSING, SURE = 0.05, 0.8


def measure(pipeline: Pipeline, plan: Plan, first_seed: int) -> Iterator[Measured]:
    """A row for each number of steps and each tolerance, most exact first."""
    with Engine(pipeline) as engine:
        for steps in plan.steps:
            dense, whole = _pictures(engine, plan, steps, first_seed, None)
            for tolerance in TOLERANCES:
                policy = promising(tolerance)
                pictures, cost = _pictures(engine, plan, steps, first_seed, policy)
                decibels = [psnr(p, d) for p, d in zip(pictures, dense, strict=True)]
                likeness = [ssim(p, d) for p, d in zip(pictures, dense, strict=True)]
                yield Measured(
                    steps=steps,
                    tolerance=tolerance,
                    psnr=statistics.fmean(decibels),
                    psnr_low=kept_by_most(decibels),
                    ssim=statistics.fmean(likeness),
                    cost=cost / whole,
                )


def kept_by_most(decibels: Sequence[float]) -> float:
    """What 95 % of pictures like these keep, four times in five: the lowest of them but for as many
    as may be below (the order statistic that bounds a quantile; Wilks 1941). The 5th percentile of
    what was measured is missed by more than 5 % every other time. Of less than 32 it is the lowest.
    """
    count, below, fewer = len(decibels), 0, (1 - MISSING) ** len(decibels)
    while True:
        below += 1
        fewer += math.comb(count, below) * MISSING**below * (1 - MISSING) ** (count - below)
        if fewer > 1 - SURE:
            return sorted(decibels)[below - 1]


def _pictures(
    engine: Engine, plan: Plan, steps: int, first_seed: int, policy: str | None
) -> tuple[Sequence[np.ndarray], float]:
    """One picture of each prompt, and how many evaluations all that was computed is worth."""
    streams = [
        engine.stream(
            prompt,
            steps=steps,
            seed=first_seed + i,
            size=plan.size,
            guidance=plan.guidance,
            policy=policy,
        )
        for i, prompt in enumerate(plan.prompts)
    ]
    pictures, cost = [], 0.0
    for stream in streams:
        for event in stream:
            if event.kind == "picture":
                pictures.append(np.asarray(event.picture))
                cost += event.cost
    return pictures, cost
