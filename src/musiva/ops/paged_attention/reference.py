"""Attention to paged keys as the formula reads: a segment at a time, its tokens looked up by one.

T rows, P pages of N tokens, S segments with at most M pages each, L queries of a segment, J keys, H
heads, K channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.core.pack import Rows

__all__ = ["paged_attend_reference"]


def paged_attend_reference(
    q_THK: Tensor, pages_PN2HK: Tensor, table_SM: Tensor, lengths_S: Tensor, rows: Rows
) -> Tensor:
    """See `paged_attend`; padding rows of the result are zero. Computed in the dtype of q."""
    out_THK, page_size = torch.zeros_like(q_THK), pages_PN2HK.shape[1]
    for i, s in enumerate(rows.segments):
        token_J = torch.arange(int(lengths_S[i]))
        kv_J2HK = pages_PN2HK[table_SM[i, token_J // page_size], token_J % page_size]
        k_JHK, v_JHK = kv_J2HK.to(q_THK.dtype).unbind(1)
        q_LHK = q_THK[s.start : s.start + s.length] * q_THK.shape[-1] ** -0.5
        weight_HLJ = torch.einsum("lhk,jhk->hlj", q_LHK, k_JHK).softmax(-1)
        out_THK[s.start : s.start + s.length] = torch.einsum("hlj,jhk->lhk", weight_HLJ, v_JHK)
    return out_THK
