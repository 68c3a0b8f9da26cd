"""Attention to paged keys on a CPU: `scaled_dot_product_attention`, a segment at a time.

T rows, P pages of N tokens, S segments with at most M pages each, L queries of a segment, J keys, H
heads, K channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from musiva.core.pack import Segment
from musiva.ops.attention.heads import attend_by_heads, prefers_heads

__all__ = ["attend_pages"]


def attend_pages(
    q_THK: Tensor,
    pages_PN2HK: Tensor,
    table_SM: Tensor,
    lengths_S: Tensor,
    segments: Iterable[Segment],
) -> Tensor:
    """See `paged_attend`. Queries go with the padding up to 16 rows, as `attend` sends them: rows
    are then rounded as there.
    """
    out_THK = q_THK.new_zeros(q_THK.shape)
    for s, table, length in zip(segments, table_SM.tolist(), lengths_S.tolist(), strict=True):
        if not s.length or not length:
            continue
        k_JHK, v_JHK = _tokens(pages_PN2HK, table, length).to(q_THK.dtype).unbind(1)
        at = slice(s.start, s.start + s.pitch)
        out_THK[at] = _attend(q_THK[None, at], k_JHK[None], v_JHK[None])[0]
    return out_THK


def _tokens(pages_PN2HK: Tensor, table: list[int], length: int) -> Tensor:
    """[J, 2, H, K]: the first tokens of a sample; a view where its pages stand in a row. Raises
    ValueError or IndexError where the table names too few pages, or such as are not there.
    """
    table = table[: -(-length // pages_PN2HK.shape[1])]
    first, end = table[0], table[0] + len(table)
    if table == list(range(first, end)):
        part_MN2HK = pages_PN2HK[first:end]
    else:
        part_MN2HK = pages_PN2HK.index_select(0, torch.tensor(table))
    tokens_J2HK = part_MN2HK.flatten(0, 1)[:length]
    if tokens_J2HK.shape[0] != length:
        raise ValueError(f"the page table {table} does not lead to {length} tokens")
    return tokens_J2HK


def _attend(q_GLHK: Tensor, k_GJHK: Tensor, v_GJHK: Tensor) -> Tensor:
    # The same choice of kernel as `ops/attention/sdpa.py`, or a partial step would round otherwise.
    if prefers_heads(q_GLHK, k_GJHK):
        return attend_by_heads(q_GLHK, k_GJHK, v_GJHK)
    q_GHLK, k_GHJK, v_GHJK = (x.transpose(1, 2) for x in (q_GLHK, k_GJHK, v_GJHK))
    return scaled_dot_product_attention(q_GHLK, k_GHJK, v_GHJK).transpose(1, 2)
