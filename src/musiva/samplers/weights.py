"""What solvers, being linear, do to sums of fields: weights instead of latents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from musiva.samplers.catalog import step
from musiva.samplers.schedules import Schedule
from musiva.samplers.solvers import Memory, prediction_from_clean

__all__ = ["clean_weights", "leap"]


@lru_cache(maxsize=256)
def clean_weights(schedule: Schedule) -> tuple[float, ...]:
    """The share of each evaluation's data prediction in the final latent: unit vectors, one for
    each evaluation, go through the solver. Clipping, which is not linear, is left out.
    """
    count = schedule.num_evaluations
    cleans = torch.eye(count, dtype=torch.float64)
    start = torch.zeros(count, dtype=torch.float64)
    return tuple(leap(replace(schedule, clip=None), 0, start, (), cleans)[0].tolist())


def leap(
    schedule: Schedule, evaluation: int, x: Tensor, memory: Memory, cleans: Iterable[Tensor]
) -> tuple[Tensor, Memory]:
    """Several evaluations of a solver, of which the data predictions `cleans` are known, from
    `evaluation` on; the latent and memory after them.

    Where x, memory and cleans are coefficients over some fields, so is what comes out. Raises
    ValueError for a schedule that clips, which is not linear.
    """
    if schedule.clip is not None:
        raise ValueError("clipping is not linear")
    for at, clean in enumerate(cleans, evaluation):
        prediction = prediction_from_clean(schedule, at, x, clean)
        x, memory = step(schedule, at, x, prediction, memory)
    return x, memory
