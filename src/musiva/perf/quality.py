"""How near a picture comes to its reference: PSNR, SSIM, and PSNR over the foreground alone.

Pictures are [H, W, 3] uint8 arrays.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d

__all__ = ["foreground", "psnr", "ssim"]

# Equal pictures have no noise; this stands for them in means.
CEILING_DB = 100.0


def psnr(picture: np.ndarray, reference: np.ndarray, mask_HW: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, at most 100; of the masked pixels alone, if there are
    any.
    """
    square_HW3 = np.square(picture.astype(np.float64) - reference.astype(np.float64))
    if mask_HW is not None and mask_HW.any():
        square_HW3 = square_HW3[mask_HW]
    error = float(square_HW3.mean())
    return CEILING_DB if error == 0.0 else min(10 * math.log10(255**2 / error), CEILING_DB)


def ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity of luminance: Wang et al. 2004, Gaussian window of 11, sigma 1.5."""
    distance = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(distance**2) / (2 * 1.5**2))
    window = window / window.sum()
    kernel = (window[:, None] * window[None])[None, None]
    x, y = (torch.from_numpy(_luminance(p))[None, None] for p in (picture, reference))
    fields = torch.cat([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = conv2d(fields, kernel)[:, 0]
    variance_x, variance_y = xx - mean_x**2, yy - mean_y**2
    covariance = xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    likeness = likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    return float(likeness.mean())


def foreground(reference: np.ndarray) -> np.ndarray:
    """[H, W] bool: pixels whose 5 x 5 luminance deviates by more than 0.04, dilated by 4."""
    x = torch.from_numpy(_luminance(reference))[None, None]
    mean = avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    square = avg_pool2d(x * x, 5, 1, 2, count_include_pad=False)
    busy = ((square - mean**2).clamp(min=0).sqrt() > 0.04).double()
    return (max_pool2d(busy, 9, 1, 4)[0, 0] > 0).numpy()


def _luminance(picture: np.ndarray) -> np.ndarray:
    """[H, W] float64 from 0 to 1, by the weights of BT.601."""
    return picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255
