"""Gathering and scattering of rows as Triton kernels, a program per row and block of columns.

T rows of a pack, R rows by index, D columns of a block.
"""

# pyright: reportArgumentType=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["gather_rows_triton", "scatter_rows_triton"]

MAX_BLOCK = 1024


def gather_rows_triton(x_TD: Tensor, index_R: Tensor) -> Tensor:
    """See `gather_rows`."""
    out_RD = x_TD.new_empty(index_R.shape[0], x_TD.shape[1])
    block = _block(x_TD)
    _gather_kernel[(out_RD.shape[0], triton.cdiv(x_TD.shape[1], block))](
        x_TD, index_R, out_RD, x_TD.shape[1], *x_TD.stride(), *out_RD.stride(), BLOCK=block
    )
    return out_RD


def scatter_rows_triton(x_TD: Tensor, index_R: Tensor, values_RD: Tensor) -> None:
    """See `scatter_rows`."""
    block = _block(x_TD)
    _scatter_kernel[(index_R.shape[0], triton.cdiv(x_TD.shape[1], block))](
        x_TD, index_R, values_RD, x_TD.shape[1], *x_TD.stride(), *values_RD.stride(), BLOCK=block
    )


def _block(x_TD: Tensor) -> int:
    return min(int(triton.next_power_of_2(x_TD.shape[1])), MAX_BLOCK)


@triton.jit
def _gather_kernel(
    x_TD, index_R, out_RD, width, x_row, x_column, out_row, out_column, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column_D = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(index_R + row).to(tl.int64)
    mask_D = column_D < width
    value_D = tl.load(
        x_TD + source * x_row + column_D * x_column, mask=mask_D & (source >= 0), other=0.0
    )
    tl.store(out_RD + row * out_row + column_D * out_column, value_D, mask=mask_D)


@triton.jit
def _scatter_kernel(
    x_TD, index_R, values_RD, width, x_row, x_column, value_row, value_column, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column_D = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    target = tl.load(index_R + row).to(tl.int64)
    mask_D = (column_D < width) & (target >= 0)
    value_D = tl.load(values_RD + row * value_row + column_D * value_column, mask=mask_D, other=0.0)
    tl.store(
        x_TD + target * x_row + column_D * x_column,
        value_D.to(x_TD.dtype.element_ty),
        mask=mask_D,
    )
