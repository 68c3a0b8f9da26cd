"""The latent of noise at half the resolution, and back."""

from __future__ import annotations

import math

import pytest
import torch

from musiva.core.pack import coarser
from musiva.engine.coarse import doubled, halved


@pytest.mark.parametrize(
    ("grid", "patch"), [((1, 16, 16), (1, 1, 1)), ((1, 7, 4), (1, 2, 2)), ((3, 6, 5), (1, 1, 1))]
)
def test_what_is_smooth_comes_back(grid: tuple[int, int, int], patch: tuple[int, int, int]) -> None:
    tokens, channels = math.prod(grid), 2 * math.prod(patch)
    noise = torch.randn(tokens, channels, generator=torch.Generator().manual_seed(0))
    small = halved(noise, grid, patch)
    assert small.shape == (math.prod(coarser(grid, 1)), channels)
    smooth = doubled(small, grid, patch)
    again = doubled(halved(smooth, grid, patch), grid, patch)
    # Unit noise stays unit noise, so what was smooth becomes larger by the ratio of the sides.
    growth = math.sqrt(tokens / small.shape[0])
    assert torch.allclose(again, smooth * growth, atol=1e-4)
    flat = torch.full_like(small, 0.7)
    assert torch.allclose(doubled(flat, grid, patch), torch.full_like(noise, 0.7), atol=1e-5)


def test_unit_noise_stays_unit_noise() -> None:
    grid = (1, 64, 64)
    noise = torch.randn(64 * 64, 4, generator=torch.Generator().manual_seed(1))
    small = halved(noise, grid, (1, 1, 1))
    assert small.std().item() == pytest.approx(1.0, abs=0.02)
    covariance = (small.T @ small) / small.shape[0]
    assert torch.allclose(covariance, torch.eye(4), atol=0.1)
