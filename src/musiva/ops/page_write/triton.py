"""Norm, rotation and writing of keys and values as one Triton kernel, a program per row.

T rows, P pages of N tokens, H heads of a block, K channels of a head; both padded to powers of two.
"""

# pyright: reportCallIssue=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["page_write_triton"]

MAX_HEADS = 16


def page_write_triton(
    k_THK: Tensor,
    v_THK: Tensor,
    pages_PN2HK: Tensor,
    slot_T: Tensor,
    weight_K: Tensor | None,
    eps: float,
    cos_TK: Tensor | None,
    sin_TK: Tensor | None,
    interleaved: bool,
) -> None:
    """See `page_write`."""
    num_rows, heads, channels = k_THK.shape
    block_h = min(triton.next_power_of_2(heads), MAX_HEADS)
    # Absent tensors are never read, but a kernel wants something in their place.
    weight, cos, sin = (k_THK if x is None else x for x in (weight_K, cos_TK, sin_TK))
    _write_kernel[(num_rows, triton.cdiv(heads, block_h))](
        k_THK,
        v_THK,
        pages_PN2HK,
        slot_T,
        weight,
        cos,
        sin,
        eps,
        heads,
        *k_THK.stride(),
        *v_THK.stride(),
        *pages_PN2HK.stride(),
        weight.stride(0),
        *cos.stride()[:2],
        *sin.stride()[:2],
        PAGE=pages_PN2HK.shape[1],
        CHANNELS=channels,
        NORM=weight_K is not None,
        ROTARY=cos_TK is not None,
        INTERLEAVED=interleaved,
        BLOCK_H=block_h,
        BLOCK_K=triton.next_power_of_2(channels),
    )


@triton.jit
def _write_kernel(
    k_THK,
    v_THK,
    pages_PN2HK,
    slot_T,
    weight_K,
    cos_TK,
    sin_TK,
    eps,
    heads,
    k_row,
    k_head,
    k_channel,
    v_row,
    v_head,
    v_channel,
    page_step,
    token_step,
    value_step,
    head_step,
    channel_step,
    weight_channel,
    cos_row,
    cos_channel,
    sin_row,
    sin_channel,
    PAGE: tl.constexpr,
    CHANNELS: tl.constexpr,
    NORM: tl.constexpr,
    ROTARY: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_T + row).to(tl.int64)
    if slot >= 0:
        head_H = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
        channel_K = tl.arange(0, BLOCK_K)
        in_head_K = channel_K < CHANNELS
        mask_HK = (head_H < heads)[:, None] & in_head_K[None, :]
        from_HK = k_THK + row * k_row + head_H[:, None] * k_head
        k_HK = tl.load(from_HK + channel_K[None, :] * k_channel, mask=mask_HK, other=0.0)
        v_HK = tl.load(
            v_THK + row * v_row + head_H[:, None] * v_head + channel_K[None, :] * v_channel,
            mask=mask_HK,
            other=0.0,
        )
        to_HK = (
            pages_PN2HK
            + (slot // PAGE) * page_step
            + (slot % PAGE) * token_step
            + head_H[:, None] * head_step
            + channel_K[None, :] * channel_step
        )
        element = pages_PN2HK.dtype.element_ty
        tl.store(to_HK + value_step, v_HK.to(element), mask=mask_HK)
        k_HK = k_HK.to(tl.float32)
        shrink_H = tl.full([BLOCK_H], 1.0, tl.float32)
        if NORM:
            shrink_H = tl.rsqrt(tl.sum(k_HK * k_HK, 1) / CHANNELS + eps)
            weight = tl.load(weight_K + channel_K * weight_channel, mask=in_head_K, other=0.0)
            k_HK = k_HK * shrink_H[:, None] * weight.to(tl.float32)[None, :]
        if ROTARY:
            # The other channel of each pair is read once more, which costs less than a shuffle.
            if INTERLEAVED:
                other_K = channel_K ^ 1
                sign_K = tl.where(channel_K % 2 == 0, -1.0, 1.0)
            else:
                other_K = (channel_K + CHANNELS // 2) % CHANNELS
                sign_K = tl.where(channel_K < CHANNELS // 2, -1.0, 1.0)
            other_HK = tl.load(from_HK + other_K[None, :] * k_channel, mask=mask_HK, other=0.0)
            other_HK = other_HK.to(tl.float32) * sign_K[None, :]
            if NORM:
                weight = tl.load(weight_K + other_K * weight_channel, mask=in_head_K, other=0.0)
                other_HK = other_HK * shrink_H[:, None] * weight.to(tl.float32)[None, :]
            cos = tl.load(
                cos_TK + row * cos_row + channel_K * cos_channel, mask=in_head_K, other=0.0
            )
            sin = tl.load(
                sin_TK + row * sin_row + channel_K * sin_channel, mask=in_head_K, other=0.0
            )
            k_HK = k_HK * cos.to(tl.float32)[None, :] + other_HK * sin.to(tl.float32)[None, :]
        tl.store(to_HK, k_HK.to(element), mask=mask_HK)
