"""What tolerances of the policy `adaptive` give against the dense run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from musiva.engine import Engine
from musiva.engine.pipeline import Pipeline
from musiva.perf.quality import psnr, ssim
from musiva.policy import Measured

if TYPE_CHECKING:
    from musiva.perf.calibration import Plan

__all__ = ["TOLERANCES", "measure"]

TOLERANCES = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.115, 0.13, 0.145, 0.165, 0.19, 0.22, 0.26, 0.33)


def measure(pipeline: Pipeline, plan: Plan, first_seed: int) -> Iterator[Measured]:
    """A row for each number of steps and each tolerance, most exact first."""
    with Engine(pipeline) as engine:
        for steps in plan.steps:
            dense, whole = _pictures(engine, plan, steps, first_seed, None)
            for tolerance in TOLERANCES:
                policy = f"adaptive:tolerance={tolerance}"
                pictures, cost = _pictures(engine, plan, steps, first_seed, policy)
                decibels = [psnr(p, d) for p, d in zip(pictures, dense, strict=True)]
                likeness = [ssim(p, d) for p, d in zip(pictures, dense, strict=True)]
                yield Measured(
                    steps=steps,
                    tolerance=tolerance,
                    psnr=statistics.fmean(decibels),
                    psnr_low=float(np.quantile(decibels, 0.05)),
                    ssim=statistics.fmean(likeness),
                    cost=cost / whole,
                )


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
