"""Modulated norm and gated add as Triton kernels, a program per row.

T rows, M modulation rows, D width, padded to a power of two.
"""

# pyright: reportCallIssue=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["gated_add_triton", "modulated_norm_triton"]


def modulated_norm_triton(
    x_TD: Tensor, shift_MD: Tensor, scale_MD: Tensor, mod_T: Tensor, eps: float
) -> Tensor:
    """See `modulated_norm`; mod_T is the modulation row of each row. Not differentiable."""
    out_TD = x_TD.new_empty(x_TD.shape)
    _norm_kernel[(x_TD.shape[0],)](
        x_TD,
        shift_MD,
        scale_MD,
        mod_T,
        out_TD,
        eps,
        *x_TD.stride(),
        *shift_MD.stride(),
        *scale_MD.stride(),
        *out_TD.stride(),
        WIDTH=x_TD.shape[1],
        BLOCK=triton.next_power_of_2(x_TD.shape[1]),
        num_warps=_warps(x_TD),
    )
    return out_TD


def gated_add_triton(x_TD: Tensor, value_TD: Tensor, gate_MD: Tensor, mod_T: Tensor) -> Tensor:
    """See `gated_add`; mod_T is the modulation row of each row. Not differentiable."""
    out_TD = x_TD.new_empty(x_TD.shape)
    _add_kernel[(x_TD.shape[0],)](
        x_TD,
        value_TD,
        gate_MD,
        mod_T,
        out_TD,
        *x_TD.stride(),
        *value_TD.stride(),
        *gate_MD.stride(),
        *out_TD.stride(),
        WIDTH=x_TD.shape[1],
        BLOCK=triton.next_power_of_2(x_TD.shape[1]),
        num_warps=_warps(x_TD),
    )
    return out_TD


def _warps(x_TD: Tensor) -> int:
    """About 16 columns a thread."""
    return min(max(int(triton.next_power_of_2(x_TD.shape[1])) // 512, 1), 16)


@triton.jit
def _norm_kernel(
    x_TD,
    shift_MD,
    scale_MD,
    mod_T,
    out_TD,
    eps,
    x_row,
    x_column,
    shift_row,
    shift_column,
    scale_row,
    scale_column,
    out_row,
    out_column,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    mod = tl.load(mod_T + row)
    column_D = tl.arange(0, BLOCK)
    mask_D = column_D < WIDTH
    x_D = tl.load(x_TD + row * x_row + column_D * x_column, mask=mask_D, other=0.0).to(tl.float32)
    shift_D = tl.load(shift_MD + mod * shift_row + column_D * shift_column, mask=mask_D, other=0.0)
    scale_D = tl.load(scale_MD + mod * scale_row + column_D * scale_column, mask=mask_D, other=0.0)
    # The row is in registers, so the variance can be taken around the mean, without cancellation.
    centred_D = tl.where(mask_D, x_D - tl.sum(x_D, 0) / WIDTH, 0.0)
    normed_D = centred_D * tl.rsqrt(tl.sum(centred_D * centred_D, 0) / WIDTH + eps)
    y_D = normed_D * (1.0 + scale_D.to(tl.float32)) + shift_D.to(tl.float32)
    tl.store(
        out_TD + row * out_row + column_D * out_column,
        y_D.to(out_TD.dtype.element_ty),
        mask=mask_D,
    )


@triton.jit
def _add_kernel(
    x_TD,
    value_TD,
    gate_MD,
    mod_T,
    out_TD,
    x_row,
    x_column,
    value_row,
    value_column,
    gate_row,
    gate_column,
    out_row,
    out_column,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    mod = tl.load(mod_T + row)
    column_D = tl.arange(0, BLOCK)
    mask_D = column_D < WIDTH
    x_D = tl.load(x_TD + row * x_row + column_D * x_column, mask=mask_D, other=0.0)
    value_D = tl.load(value_TD + row * value_row + column_D * value_column, mask=mask_D, other=0.0)
    gate_D = tl.load(gate_MD + mod * gate_row + column_D * gate_column, mask=mask_D, other=0.0)
    y_D = x_D.to(tl.float32) + gate_D.to(tl.float32) * value_D.to(tl.float32)
    tl.store(
        out_TD + row * out_row + column_D * out_column,
        y_D.to(out_TD.dtype.element_ty),
        mask=mask_D,
    )
