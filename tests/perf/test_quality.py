"""How near pictures come, where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musiva.perf.quality import foreground, psnr, ssim


def flat(level: int, side: int = 32) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def test_psnr() -> None:
    assert psnr(flat(0), flat(51)) == pytest.approx(-20 * math.log10(0.2))
    assert psnr(flat(51), flat(51)) == 100.0
    half = flat(0)
    half[:, 16:] = 51
    mask = np.zeros((32, 32), bool)
    mask[:, 16:] = True
    assert psnr(half, flat(0), mask) == pytest.approx(-20 * math.log10(0.2))
    assert psnr(half, flat(0), ~mask) == 100.0
    nothing = np.zeros((32, 32), bool)
    assert psnr(half, flat(0), nothing) == psnr(half, flat(0))


def test_ssim() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    noise = rng.integers(-20, 21, picture.shape)
    near = np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert 0.8 < ssim(near, picture) < 1.0
    assert ssim(255 - picture, picture) < 0.0


def test_the_foreground_is_what_is_busy_and_some_pixels_around() -> None:
    picture = flat(200)
    picture[14:18, 14:18] = 20
    seen = foreground(picture)
    assert seen[16, 16]
    # Windows of 5 reach 2 pixels out, the dilation 4 more.
    assert seen[16, 8]
    assert not seen[16, 7]
    assert not foreground(flat(90)).any()
