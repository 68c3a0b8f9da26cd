"""What an error of one data prediction does to the final latent."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from musiva.samplers.catalog import step
from musiva.samplers.schedules import Schedule
from musiva.samplers.solvers import Memory, prediction_from_clean

__all__ = ["clean_weights"]


@lru_cache(maxsize=256)
def clean_weights(schedule: Schedule) -> tuple[float, ...]:
    """The share of each evaluation's data prediction in the final latent.

    A solver is linear in the predictions, so running it on unit vectors, one for each evaluation,
    reads its weights off; whatever the solver. Clipping, which is not linear, is left out.
    """
    count = schedule.num_evaluations
    linear = replace(schedule, clip=None)
    x = torch.zeros(count, dtype=torch.float64)
    memory: Memory = ()
    for evaluation, clean in enumerate(torch.eye(count, dtype=torch.float64)):
        prediction = prediction_from_clean(linear, evaluation, x, clean)
        x, memory = step(linear, evaluation, x, prediction, memory)
    return tuple(x.tolist())
