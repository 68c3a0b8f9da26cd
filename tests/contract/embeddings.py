"""Embeddings that families share; each reproduces the numbers of the diffusers function it
names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["sincos_positions", "timestep_embedding"]


def timestep_embedding(timestep_M: Tensor, width: int, *, max_period: float = 10_000.0) -> Tensor:
    """[M] -> [M, width] float32, cosines first (Vaswani et al., 2017; `Timesteps` with
    flip_sin_to_cos).
    """
    half = width // 2
    exponent = (
        -math.log(max_period)
        * torch.arange(half, dtype=torch.float32, device=timestep_M.device)
        / half
    )
    angle_MH = timestep_M.float()[:, None] * exponent.exp()[None, :]
    return torch.cat([angle_MH.cos(), angle_MH.sin()], dim=-1)


def sincos_positions(height: int, width: int, dim: int, *, base: float, scale: float) -> Tensor:
    """[height * width, dim] float32: half of the channels tell the column, half the row.

    Coordinates run over `base / scale` positions whatever the size (`get_2d_sincos_pos_embed` of
    diffusers, with PixArt's interpolation scale), so that a picture of any size spans the same
    coordinates.
    """
    row_H, column_W = (
        torch.arange(n, dtype=torch.float32) / (n / base) / scale for n in (height, width)
    )
    omega_F = 1.0 / 10_000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4.0))

    def encode(position_N: Tensor) -> Tensor:
        angle_NF = torch.outer(position_N.double(), omega_F)
        return torch.cat([angle_NF.sin(), angle_NF.cos()], dim=1)

    column_LD = encode(column_W).repeat(height, 1)
    row_LD = encode(row_H).repeat_interleave(width, 0)
    return torch.cat([column_LD, row_LD], dim=1).float()
