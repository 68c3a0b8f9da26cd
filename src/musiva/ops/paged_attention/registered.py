"""`torch.ops.musiva.paged_attend`: what a trace of the model sees, and what a GPU runs.

Defined at the lower level of `torch.library`: `torch.library.custom_op` imports the compiler at its
first call, two seconds, and costs 17 microseconds a call where this costs 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.core.pack import Segment
from musiva.ops.paged_attention.sdpa import attend_pages

__all__ = ["paged_attend_op"]

NAME = "musiva::paged_attend"
torch.library.define(
    NAME,
    "(Tensor q_THK, Tensor pages_PN2HK, Tensor table_SM, Tensor lengths_S, Tensor segment_T,"
    " Tensor token_T) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl(NAME, "CPU")
def _on_cpu(
    q_THK: Tensor,
    pages_PN2HK: Tensor,
    table_SM: Tensor,
    lengths_S: Tensor,
    segment_T: Tensor,
    token_T: Tensor,
) -> Tensor:
    real_S = torch.bincount(segment_T[token_T >= 0], minlength=lengths_S.shape[0])
    segments, start = [], 0
    for length in real_S.tolist():
        segments.append(Segment(start, length, (1, 1, length)))
        start += segments[-1].pitch
    return attend_pages(q_THK, pages_PN2HK, table_SM, lengths_S, segments)


@torch.library.impl(NAME, "CUDA")
def _on_cuda(
    q_THK: Tensor,
    pages_PN2HK: Tensor,
    table_SM: Tensor,
    lengths_S: Tensor,
    segment_T: Tensor,
    token_T: Tensor,
) -> Tensor:
    from musiva.ops.paged_attention.triton import paged_attend_triton

    with torch.cuda.device_of(q_THK):
        return paged_attend_triton(q_THK, pages_PN2HK, table_SM, lengths_S, segment_T, token_T)


@torch.library.register_fake(NAME)
def _fake(
    q_THK: Tensor,
    pages_PN2HK: Tensor,
    table_SM: Tensor,
    lengths_S: Tensor,
    segment_T: Tensor,
    token_T: Tensor,
) -> Tensor:
    return q_THK.new_empty(q_THK.shape)


paged_attend_op = torch.ops.musiva.paged_attend.default
