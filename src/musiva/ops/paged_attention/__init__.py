"""Attention of some rows of a sample to all of its tokens, which lie in pages; README.md says how.

T rows, P pages of N tokens, S segments with at most M pages each, H heads, K channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.core.pack import Rows
from musiva.ops.paged_attention.reference import paged_attend_reference
from musiva.ops.paged_attention.registered import paged_attend_op
from musiva.ops.paged_attention.sdpa import attend_pages

__all__ = ["paged_attend", "paged_attend_reference"]


def paged_attend(
    q_THK: Tensor, pages_PN2HK: Tensor, table_SM: Tensor, lengths_S: Tensor, rows: Rows
) -> Tensor:
    """Softmax attention of the rows of each segment to the first lengths_S[s] tokens of its sample.

    q_THK: laid out as `rows`. pages_PN2HK: the slab, keys at 0 and values at 1 of its third axis;
    of another dtype than q, they are converted as they are read. table_SM: int64, the pages of each
    segment's sample; token l lies in page table_SM[s, l // N] at l % N. lengths_S: int64; 0 gives
    zeros. Table entries behind a sample's last page are never read, and may be anything.

    Returns [T, H, K] in the dtype of q; padding rows are unspecified, but finite where q is. For
    inference: on CUDA tensors and under `torch.compile` it has no gradient. On CPU tensors, raises
    ValueError or IndexError for a table that does not lead to that many tokens; a GPU checks
    nothing.
    """
    if q_THK.device.type == "cpu" and not torch.compiler.is_compiling():
        return attend_pages(q_THK, pages_PN2HK, table_SM, lengths_S, rows.segments)
    return paged_attend_op(q_THK, pages_PN2HK, table_SM, lengths_S, rows.segment_T, rows.token_T)
