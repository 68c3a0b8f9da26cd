"""Rows taken out of a pack, and put back. T rows of a pack, R rows by index, D width."""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.ops.backend import uses_triton
from musiva.ops.rows.indexed import gather_rows_indexed, scatter_rows_indexed
from musiva.ops.rows.reference import gather_rows_reference, scatter_rows_reference

__all__ = ["gather_rows", "gather_rows_reference", "scatter_rows", "scatter_rows_reference"]


def gather_rows(x_TD: Tensor, index_R: Tensor) -> Tensor:
    """[R, D]: row index_R[r] of x, int64, for each r; zeros where it is -1. Raises IndexError for a
    row that is not there, on a CPU only.
    """
    if uses_triton(x_TD):
        from musiva.ops.rows.triton import gather_rows_triton

        with torch.cuda.device_of(x_TD):
            return gather_rows_triton(x_TD, index_R)
    return gather_rows_indexed(x_TD, index_R)


def scatter_rows(x_TD: Tensor, index_R: Tensor, values_RD: Tensor) -> None:
    """Write values_RD[r] into row index_R[r] of x, int64, in place and in the dtype of x; a row at
    -1 is skipped. No index may occur twice, but -1. Raises IndexError for a row that is not there,
    on a CPU only.
    """
    if uses_triton(x_TD, values_RD):
        from musiva.ops.rows.triton import scatter_rows_triton

        with torch.cuda.device_of(x_TD):
            return scatter_rows_triton(x_TD, index_R, values_RD)
    return scatter_rows_indexed(x_TD, index_R, values_RD)
