"""Previews: a latent shown as pixels by a linear map, some hundred times cheaper than decoding it.

Colour factors of single latents, fitted by hand for each model, are folklore ("latent2rgb"). Here
the map takes the 3 x 3 latents around a position to the f x f pixels that it covers, so that it
shows edges inside of a position too, and it is fitted to the autoencoder at hand by least squares
(ridge regression, Hoerl & Kennard 1970) on synthetic pictures.

B pictures, C latent channels, h x w latent positions, f pixels per position and side, H = h * f,
N positions in all, K = 9 * C numbers around a position, P = 3 * f * f pixel values of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from musiva.models.vae import Autoencoder

__all__ = ["LatentPreview", "synthetic_pictures"]

NUM_PICTURES = 32
POSITIONS_PER_SIDE = 8
SHAPES_PER_PICTURE = 4
# That are encoded at once.
PIXELS_TOGETHER = 1 << 17
# Of the mean variance of the numbers that the map reads.
RIDGE = 1e-4


class LatentPreview:
    """The map of one autoencoder. Pure: equal latents give equal bytes, whatever is shown beside
    them.
    """

    def __init__(self, weight_PCxx: Tensor, bias_P: Tensor) -> None:
        self._weight_PCxx = weight_PCxx
        self._bias_P = bias_P

    @classmethod
    @torch.no_grad()
    def fit(cls, vae: Autoencoder) -> LatentPreview:
        """Fit to the autoencoder's own encoder and its latents' scale, in its place; deterministic,
        a fraction of a second on a CPU for a small one.
        """
        anchor, factor = next(vae.parameters()), vae.downscale
        pixels_B3HW = synthetic_pictures(NUM_PICTURES, POSITIONS_PER_SIDE * factor)
        given_B3HW = pixels_B3HW.to(anchor.device, anchor.dtype)
        together = max(PIXELS_TOGETHER // given_B3HW[0, 0].numel(), 1)
        means = [vae.encode(some_B3HW)[0] for some_B3HW in given_B3HW.split(together)]
        latent_BChw = vae.scale(torch.cat(means)).cpu().double()
        channels = latent_BChw.shape[1]
        around_BKN = F.unfold(F.pad(latent_BChw, (1, 1, 1, 1), mode="replicate"), 3)
        blocks_BPN = F.pixel_unshuffle(pixels_B3HW.double(), factor).flatten(2)
        weight_KP, bias_P = _ridge(
            around_BKN.transpose(1, 2).flatten(0, 1), blocks_BPN.transpose(1, 2).flatten(0, 1)
        )
        weight_PCxx = weight_KP.T.reshape(-1, channels, 3, 3)
        return cls(
            weight_PCxx.to(anchor.device, torch.float32), bias_P.to(anchor.device, torch.float32)
        )

    @torch.no_grad()
    def show(self, latents: Sequence[Tensor]) -> list[np.ndarray]:
        """[C, h, w] each, in the denoiser's units -> [H, W, 3] uint8 each, in one transfer."""
        factor = math.isqrt(self._weight_PCxx.shape[0] // 3)
        shown = []
        for latent_Chw in latents:
            around_1Chw = F.pad(latent_Chw[None].float(), (1, 1, 1, 1), mode="replicate")
            blocks_1Phw = F.conv2d(around_1Chw, self._weight_PCxx, self._bias_P)
            pixels_3HW = F.pixel_shuffle(blocks_1Phw, factor)[0]
            levels_3HW = ((pixels_3HW / 2 + 0.5).nan_to_num(0.5).clamp(0, 1) * 255).round()
            shown.append(levels_3HW.to(torch.uint8).permute(1, 2, 0))
        values = torch.cat([picture_HW3.flatten() for picture_HW3 in shown]).cpu().numpy()
        ends = np.cumsum([picture_HW3.numel() for picture_HW3 in shown])[:-1]
        parts = np.split(values, ends)
        return [part.reshape(tuple(p.shape)) for part, p in zip(parts, shown, strict=True)]


def synthetic_pictures(count: int, side: int) -> Tensor:
    """[count, 3, side, side] float32 in -1..1, always the same: colours that run smoothly from
    corner to corner, and on them discs and turned bars, shaded from one side to the other.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    line = torch.linspace(0, 1, side)
    y_HW, x_HW = torch.meshgrid(line, line, indexing="ij")
    pictures = []
    for _ in range(count):
        corners = draw(1, 3, 2, 2)
        picture_3HW = F.interpolate(corners, (side, side), mode="bilinear", align_corners=True)[0]
        for shape in range(SHAPES_PER_PICTURE):
            colour_3, (x, y, radius, turn, slimness, shade) = draw(3), draw(6).tolist()
            radius, angle = 0.1 + 0.3 * radius, math.pi * turn
            u_HW = (x_HW - x) * math.cos(angle) + (y_HW - y) * math.sin(angle)
            v_HW = (y_HW - y) * math.cos(angle) - (x_HW - x) * math.sin(angle)
            disc = u_HW**2 + v_HW**2 < radius**2
            bar = (u_HW.abs() < radius) & (v_HW.abs() < radius * slimness)
            shaded_HW = 1 + (shade - 0.5) * u_HW / radius
            filled_3HW = (colour_3[:, None, None] * shaded_HW).clamp(0, 1)
            picture_3HW = torch.where(bar if shape % 2 else disc, filled_3HW, picture_3HW)
        pictures.append(picture_3HW)
    return torch.stack(pictures) * 2 - 1


def _ridge(given_NK: Tensor, wanted_NP: Tensor) -> tuple[Tensor, Tensor]:
    """weight_KP and bias_P of the least squares fit; the bias goes unpunished."""
    given_mean_K, wanted_mean_P = given_NK.mean(0), wanted_NP.mean(0)
    centred_NK = given_NK - given_mean_K
    normal_KK = centred_NK.T @ centred_NK
    # A constant channel leaves the matrix singular, so the ridge never vanishes.
    ridge = RIDGE * normal_KK.diagonal().mean() + torch.finfo(normal_KK.dtype).tiny
    normal_KK = normal_KK + ridge * torch.eye(len(normal_KK), dtype=normal_KK.dtype)
    weight_KP = torch.linalg.solve(normal_KK, centred_NK.T @ (wanted_NP - wanted_mean_P))
    return weight_KP, wanted_mean_P - given_mean_K @ weight_KP
