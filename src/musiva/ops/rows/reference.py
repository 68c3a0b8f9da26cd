"""Gathering and scattering of rows, one at a time. T rows of a pack, R rows by index, D width."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gather_rows_reference", "scatter_rows_reference"]


def gather_rows_reference(x_TD: Tensor, index_R: Tensor) -> Tensor:
    absent_D = x_TD.new_zeros(x_TD.shape[1])
    return torch.stack([absent_D if t < 0 else x_TD[t] for t in index_R.tolist()])


def scatter_rows_reference(x_TD: Tensor, index_R: Tensor, values_RD: Tensor) -> None:
    for t, value_D in zip(index_R.tolist(), values_RD, strict=True):
        if t >= 0:
            x_TD[t] = value_D
