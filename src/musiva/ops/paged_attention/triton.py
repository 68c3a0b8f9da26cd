"""Attention to paged keys as one Triton kernel.

T rows, P pages of N tokens, S segments with at most M pages each, Q rows of a block, J keys of a
block, H heads, K channels of a head, padded to a power of two.
"""

# pyright: reportArgumentType=false
from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["paged_attend_triton"]

BLOCK_Q = 64
# Bytes of a key block's row up to which 64 keys at a time leave room for two stages in shared
# memory.
WIDE = 256


def paged_attend_triton(
    q_THK: Tensor,
    pages_PN2HK: Tensor,
    table_SM: Tensor,
    lengths_S: Tensor,
    segment_T: Tensor,
    token_T: Tensor,
) -> Tensor:
    """See `paged_attend`; segment_T and token_T are those of its `rows`. Padding rows are zero."""
    num_rows, heads, channels = q_THK.shape
    out_THK = q_THK.new_zeros(q_THK.shape)
    block_k = max(triton.next_power_of_2(channels), 16)
    _attend_kernel[(triton.cdiv(num_rows, BLOCK_Q), heads)](
        q_THK,
        pages_PN2HK,
        table_SM,
        lengths_S,
        segment_T,
        token_T,
        out_THK,
        num_rows,
        math.log2(math.e) * channels**-0.5,
        *q_THK.stride(),
        *pages_PN2HK.stride(),
        *table_SM.stride(),
        *out_THK.stride(),
        PAGE=pages_PN2HK.shape[1],
        CHANNELS=channels,
        BLOCK_Q=BLOCK_Q,
        BLOCK_J=64 if block_k * q_THK.element_size() <= WIDE else 32,
        BLOCK_K=block_k,
    )
    return out_THK


@triton.jit
def _attend_kernel(
    q_THK,
    pages_PN2HK,
    table_SM,
    lengths_S,
    segment_T,
    token_T,
    out_THK,
    num_rows,
    scale,
    q_row,
    q_head,
    q_channel,
    page_step,
    token_step,
    value_step,
    head_step,
    channel_step,
    table_row,
    table_page,
    out_row,
    out_head,
    out_channel,
    PAGE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    head = tl.program_id(1)
    row_Q = (tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)).to(tl.int64)
    channel_K = tl.arange(0, BLOCK_K)
    in_head_K = channel_K < CHANNELS
    real_Q = tl.load(token_T + row_Q, mask=row_Q < num_rows, other=-1) >= 0
    segment_Q = tl.load(segment_T + row_Q, mask=real_Q, other=-1).to(tl.int32)
    q_QK = tl.load(
        q_THK + row_Q[:, None] * q_row + head * q_head + channel_K[None, :] * q_channel,
        mask=real_Q[:, None] & in_head_K[None, :],
        other=0.0,
    )
    last = tl.max(segment_Q, 0)
    first = tl.min(tl.where(real_Q, segment_Q, last + 1), 0)
    # Mostly one segment. Where another begins inside the block, all rows meet the keys of each, and
    # only what belongs to a segment is stored: a sample that holds NaN stays alone with it.
    for segment in range(first, last + 1):
        length = tl.load(lengths_S + segment).to(tl.int32)
        # Finite, so that no difference of two infinities can arise.
        top_Q = tl.full([BLOCK_Q], -1e30, tl.float32)
        sum_Q = tl.zeros([BLOCK_Q], tl.float32)
        out_QK = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
        for begin in range(0, length, BLOCK_J):
            token_J = begin + tl.arange(0, BLOCK_J)
            valid_J = token_J < length
            page_J = tl.load(
                table_SM + segment * table_row + (token_J // PAGE) * table_page,
                mask=valid_J,
                other=0,
            ).to(tl.int64)
            at_J = page_J * page_step + (token_J % PAGE) * token_step + head * head_step
            at_JK = at_J[:, None] + channel_K[None, :] * channel_step
            mask_JK = valid_J[:, None] & in_head_K[None, :]
            k_JK = tl.load(pages_PN2HK + at_JK, mask=mask_JK, other=0.0).to(q_QK.dtype)
            v_JK = tl.load(pages_PN2HK + at_JK + value_step, mask=mask_JK, other=0.0).to(q_QK.dtype)
            score_QJ = tl.dot(q_QK, tl.trans(k_JK), input_precision="ieee") * scale
            score_QJ = tl.where(valid_J[None, :], score_QJ, float("-inf"))
            higher_Q = tl.maximum(top_Q, tl.max(score_QJ, 1))
            keep_Q = tl.exp2(top_Q - higher_Q)
            weight_QJ = tl.exp2(score_QJ - higher_Q[:, None])
            sum_Q = sum_Q * keep_Q + tl.sum(weight_QJ, 1)
            out_QK = out_QK * keep_Q[:, None]
            out_QK += tl.dot(weight_QJ.to(q_QK.dtype), v_JK, input_precision="ieee")
            top_Q = higher_Q
        own_Q = (segment_Q == segment) & (length > 0)
        out_QK = out_QK / tl.where(own_Q, sum_Q, 1.0)[:, None]
        tl.store(
            out_THK + row_Q[:, None] * out_row + head * out_head + channel_K[None, :] * out_channel,
            out_QK.to(out_THK.dtype.element_ty),
            mask=own_Q[:, None] & in_head_K[None, :],
        )
