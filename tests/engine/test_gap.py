"""A gap in one leap is what its evaluations are one by one."""

from __future__ import annotations

import random

import pytest
import torch

from musiva.core.types import Action
from musiva.engine.gap import Gaps
from musiva.policy import Anchors, Calibration, Conditions, Kriging
from musiva.samplers import (
    SAMPLERS,
    NoiseModel,
    Schedule,
    build_schedule,
    prediction_from_clean,
    step,
)

FITTING = [(name, kind) for name, one in SAMPLERS.items() for kind in one.spacings]
GRID, PATCH, CHANNELS = (1, 4, 6), (1, 1, 1), 3


def kriging() -> Kriging:
    places = tuple(1 - i / 12 for i in range(12))
    runs_BNM = torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(0))
    conditions = Conditions(steps=12, sampler="euler", guidance=1.0, size=(48, 32), prompts=8)
    correction = 0.1 * torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1))
    moments = runs_BNM @ runs_BNM.transpose(1, 2) / 40
    return Kriging(Calibration(places, (0.4,), moments, correction, (0.0,) * 4, conditions), PATCH)


def one_by_one(
    forecasts: Kriging,
    schedule: Schedule,
    evaluation: int,
    actions: list[Action],
    x: torch.Tensor,
    memory: tuple[torch.Tensor, ...],
    anchors: Anchors,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor]:
    clean = torch.empty(0)
    for at, action in enumerate(actions, evaluation):
        place = schedule.place(at)
        if action.calibrated:
            known = anchors if action.order else anchors.newest(1)
            clean = forecasts.estimate(known, place, GRID)
        else:
            clean = anchors.forecast(place, action.order)
        x, memory = step(schedule, at, x, prediction_from_clean(schedule, at, x, clean), memory)
    return x, memory, clean


@pytest.mark.parametrize(("sampler", "kind"), FITTING)
@pytest.mark.parametrize("calibrated", ["never", "always", "at times"])
def test_a_leap_is_its_evaluations_one_by_one(sampler: str, kind, calibrated: str) -> None:
    rng, generator = random.Random(3), torch.Generator().manual_seed(2)
    schedule = build_schedule(NoiseModel(prediction=kind, shift=1.5), sampler, 12)
    forecasts = kriging()
    gaps, total = Gaps(forecasts), schedule.num_evaluations
    x, memory = torch.randn(24, CHANNELS, generator=generator), ()
    anchors, at = Anchors(), 0
    while at < total:
        value = torch.randn(24, CHANNELS, generator=generator)
        anchors = anchors.add(value, schedule.place(at), 3, x)
        x, memory = step(schedule, at, x, prediction_from_clean(schedule, at, x, value), memory)
        chance = {"never": 0.0, "always": 1.0, "at times": 0.5}[calibrated]
        actions = []
        for _ in range(min(rng.randint(1, 5), total - at - 1)):
            marked = rng.random() < chance
            order = rng.randint(0, 1 if marked else 2)
            actions.append(Action(compute=False, order=order, calibrated=marked))
        if not actions:
            break
        start = (schedule, at + 1, actions, x, memory, anchors)
        x, memory, clean = one_by_one(forecasts, *start)
        landing = gaps.cross(*start, GRID)
        scale = 1e-5 * max(1.0, x.abs().max().item(), clean.abs().max().item())
        assert landing.clean is not None
        assert torch.allclose(landing.latent, x, atol=scale)
        assert torch.allclose(landing.clean, clean, atol=scale)
        assert len(landing.memory) == len(memory)
        for ours, theirs in zip(landing.memory, memory, strict=True):
            assert torch.allclose(ours, theirs, atol=10 * scale)
        at += 1 + len(actions)


def test_a_schedule_that_clips_is_refused() -> None:
    noise = NoiseModel(prediction="epsilon", clip=1.0)
    schedule = build_schedule(noise, "ddim", 5)
    x = torch.randn(24, CHANNELS, generator=torch.Generator().manual_seed(0))
    anchors = Anchors().add(x, schedule.place(0), 1, x)
    with pytest.raises(ValueError, match="clip"):
        Gaps(None).cross(schedule, 1, [Action(compute=False, order=0)], x, (), anchors, GRID)
