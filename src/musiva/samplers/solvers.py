"""Solvers: pure functions from a prediction to the next latent.

`solve(schedule, evaluation, x, prediction, memory) -> (x, memory)`; `memory` holds every earlier
tensor that the solver still needs, so a sample can be checkpointed, moved or replayed between any
two evaluations.

Only elementwise products, sums and clamps are used, one operation each: fused forms (`addcmul`,
`lerp`, `add(alpha=)`) round differently in the vector body and in the tail of a tensor, and the
bytes of a sample would depend on its neighbours in a pack.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from musiva.samplers.schedules import Schedule

__all__ = [
    "Memory",
    "Solver",
    "ddim",
    "dpm_2m",
    "euler",
    "heun",
    "predicted_clean",
    "predicted_noise",
    "prediction_from_clean",
    "unipc",
]

Memory: TypeAlias = tuple[Tensor, ...]
Solver: TypeAlias = Callable[[Schedule, int, Tensor, Tensor, Memory], tuple[Tensor, Memory]]


def euler(
    schedule: Schedule, evaluation: int, x: Tensor, prediction: Tensor, memory: Memory
) -> tuple[Tensor, Memory]:
    """Euler's method on dx/dsigma = eps - x0 (Lipman et al. 2022, arXiv 2210.02747)."""
    stride = schedule.sigmas[evaluation + 1] - schedule.sigmas[evaluation]
    return x + stride * prediction, ()


def heun(
    schedule: Schedule, evaluation: int, x: Tensor, prediction: Tensor, memory: Memory
) -> tuple[Tensor, Memory]:
    """Heun's method on the same path (Karras et al. 2022, arXiv 2206.00364, algorithm 1).

    Even evaluations take an Euler step and remember its start and slope; odd ones take the step
    again from there with the mean of both slopes. The last step, to sigma 0, is Euler's.
    """
    step = evaluation // 2
    stride = schedule.sigmas[step + 1] - schedule.sigmas[step]
    if evaluation % 2:
        start, slope = memory
        return start + stride * (0.5 * (slope + prediction)), ()
    last = step == schedule.num_steps - 1
    return x + stride * prediction, () if last else (x, prediction)


def ddim(
    schedule: Schedule, evaluation: int, x: Tensor, prediction: Tensor, memory: Memory
) -> tuple[Tensor, Memory]:
    """DDIM with eta = 0 (Song et al. 2020, arXiv 2010.02502, eq. 12)."""
    alpha, sigma = schedule.landings[evaluation]
    clean = predicted_clean(schedule, evaluation, x, prediction)
    return alpha * clean + sigma * predicted_noise(schedule, evaluation, x, prediction), ()


def dpm_2m(
    schedule: Schedule, evaluation: int, x: Tensor, prediction: Tensor, memory: Memory
) -> tuple[Tensor, Memory]:
    """DPM-Solver++(2M), midpoint (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    With lambda = log(alpha / sigma) and h its growth over the step, the paper's alpha' * (1 -
    exp(-h)) is `gain = alpha' - alpha * sigma' / sigma`, which needs no logarithm and holds at
    sigma' = 0 too. The first step, and the last where the schedule says so, is of first order.
    """
    clean = predicted_clean(schedule, evaluation, x, prediction)
    moved = _multistep(schedule, evaluation, x, clean, *memory)
    return moved, () if evaluation == schedule.num_steps - 1 else (clean,)


def unipc(
    schedule: Schedule, evaluation: int, x: Tensor, prediction: Tensor, memory: Memory
) -> tuple[Tensor, Memory]:
    """UniPC of second order with B2(h) = exp(h) - 1 (Zhao et al. 2023, arXiv 2302.04867): the
    latent is corrected by what the model says of it, without another evaluation, and then goes on.
    Its predictor is DPM-Solver++(2M).

    memory: the corrected latent of the evaluation before, and data predictions, the newest first.
    """
    clean = predicted_clean(schedule, evaluation, x, prediction)
    if memory:
        x = _corrected(schedule, evaluation, clean, *memory)
    moved = _multistep(schedule, evaluation, x, clean, *memory[1:2])
    return moved, () if evaluation == schedule.num_steps - 1 else (x, clean, *memory[1:2])


def _multistep(
    schedule: Schedule, evaluation: int, x: Tensor, clean: Tensor, earlier: Tensor | None = None
) -> Tensor:
    """The next latent. earlier: the data prediction of the evaluation before."""
    alpha, sigma = schedule.level(evaluation)
    alpha_next, sigma_next = schedule.landings[evaluation]
    decay = sigma_next / sigma
    gain = alpha_next - alpha * decay
    moved = decay * x + gain * clean
    last = evaluation == schedule.num_steps - 1
    if earlier is not None and not (last and schedule.euler_at_final):
        here = _half_log_snr(alpha, sigma)
        growth = _half_log_snr(alpha_next, sigma_next) - here
        growth_before = here - _half_log_snr(*schedule.level(evaluation - 1))
        moved = moved + (0.5 * gain * growth / growth_before) * (clean - earlier)
    return moved


def _corrected(
    schedule: Schedule,
    evaluation: int,
    clean: Tensor,
    start: Tensor,
    newest: Tensor,
    oldest: Tensor | None = None,
) -> Tensor:
    """The latent of an evaluation, stepped to again with its own data prediction too. start: the
    latent of the evaluation before; newest, oldest: data predictions of that one and the one before
    it.
    """
    alpha_before, sigma_before = schedule.level(evaluation - 1)
    alpha, sigma = schedule.level(evaluation)
    decay = sigma / sigma_before
    gain = alpha - alpha_before * decay
    again = decay * start + gain * newest
    if oldest is None:
        return again + (0.5 * gain) * (clean - newest)
    there = _half_log_snr(alpha_before, sigma_before)
    growth = _half_log_snr(alpha, sigma) - there
    ratio = (_half_log_snr(*schedule.level(evaluation - 2)) - there) / growth
    # The weights for which data predictions of degree two in log(alpha / sigma) are met.
    whole = math.expm1(-growth)
    linear = whole / -growth - 1.0
    square = 2.0 * (linear / -growth - 0.5)
    old = (linear - square) / (whole * (1.0 - ratio))
    new = linear / whole - old
    return again + (gain * old / ratio) * (oldest - newest) + (gain * new) * (clean - newest)


def predicted_clean(schedule: Schedule, evaluation: int, x: Tensor, prediction: Tensor) -> Tensor:
    """The x0 that a prediction implies, for previews and forecasts; fp32 (fp64 from fp64)."""
    x, prediction = as_computed(x), as_computed(prediction)
    alpha, sigma = schedule.level(evaluation)
    if schedule.prediction == "flow":
        clean = x - sigma * prediction
    elif schedule.prediction == "epsilon":
        clean = (x - sigma * prediction) / alpha
    else:
        clean = alpha * x - sigma * prediction
    return clean if schedule.clip is None else clean.clamp(-schedule.clip, schedule.clip)


def prediction_from_clean(schedule: Schedule, evaluation: int, x: Tensor, clean: Tensor) -> Tensor:
    """The prediction that implies this x0, the inverse of `predicted_clean`; fp32 (fp64 from
    fp64).
    """
    x, clean = as_computed(x), as_computed(clean)
    alpha, sigma = schedule.level(evaluation)
    if schedule.prediction == "flow":
        return (x - clean) / sigma
    if schedule.prediction == "epsilon":
        return (x - alpha * clean) / sigma
    return (alpha * x - clean) / sigma


def predicted_noise(schedule: Schedule, evaluation: int, x: Tensor, prediction: Tensor) -> Tensor:
    """The eps that a prediction implies, unclipped; fp32 (fp64 from fp64)."""
    x, prediction = as_computed(x), as_computed(prediction)
    alpha, sigma = schedule.level(evaluation)
    if schedule.prediction == "flow":
        return x + alpha * prediction
    if schedule.prediction == "epsilon":
        return prediction
    return alpha * prediction + sigma * x


def as_computed(tensor: Tensor) -> Tensor:
    """fp32, or fp64 when it came so."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _half_log_snr(alpha: float, sigma: float) -> float:
    if sigma == 0.0:
        return math.inf
    return math.log(alpha / sigma) if alpha > 0.0 else -math.inf
