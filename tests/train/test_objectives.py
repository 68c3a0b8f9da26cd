"""Objectives against their formulas, and against diffusers' schedulers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from musiva.train import Objective


@pytest.mark.parametrize("kind", ["flow", "v"])
def test_target_leads_back_to_the_picture(kind: str) -> None:
    objective = Objective.Config(kind=kind).build()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    clean_TC, noise_TC = torch.randn(2, 6, 4, generator=generator)
    time_T1 = torch.linspace(0.01, 0.99, 6)[:, None]
    seen_TC, target_TC = objective.noised(clean_TC, noise_TC, time_T1)
    if kind == "flow":
        assert torch.allclose(seen_TC - time_T1 * target_TC, clean_TC, atol=1e-5)
        assert torch.allclose(target_TC, noise_TC - clean_TC)
    else:
        angle_T1 = time_T1 * math.pi / 2
        assert torch.allclose(
            angle_T1.cos() * seen_TC - angle_T1.sin() * target_TC, clean_TC, atol=1e-5
        )


def test_v_target_is_that_of_diffusers() -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(prediction_type="v_prediction")
    step = torch.tensor([300])
    alpha = scheduler.alphas_cumprod[step].sqrt()
    time_T1 = (alpha.arccos() / (math.pi / 2)).reshape(1, 1).expand(5, 1)
    clean_TC, noise_TC = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    seen_TC, target_TC = Objective.Config(kind="v").build().noised(clean_TC, noise_TC, time_T1)
    assert torch.allclose(seen_TC, scheduler.add_noise(clean_TC, noise_TC, step), atol=1e-5)
    assert torch.allclose(target_TC, scheduler.get_velocity(clean_TC, noise_TC, step), atol=1e-5)


def test_times_are_logit_normal_and_shift_with_size() -> None:
    objective = Objective.Config(base_rows=64).build()

    def times(rows: int) -> np.ndarray:
        rng = np.random.default_rng(0)
        return np.array([objective.time(rng, rows) for _ in range(4000)])

    base, large = times(64), times(256)
    logits = np.log(base / (1 - base))
    assert abs(logits.mean()) < 0.05
    assert abs(logits.std() - 1) < 0.05
    assert np.allclose(large, 2 * base / (1 + base))  # the odds doubled: sqrt(256 / 64)


def test_loss_counts_samples_not_rows() -> None:
    objective = Objective.Config().build()
    error_TC = torch.tensor([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0]])
    loss_S = objective.loss(
        error_TC, torch.zeros(3, 2), torch.tensor([0, 0, 1]), torch.tensor([2.0, 1.0])
    )
    assert loss_S.tolist() == [5.0, 4.0]
