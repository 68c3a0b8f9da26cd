"""Keys and values of a pack's rows into pages; README.md says how.

T rows, P pages of N tokens, H heads, K channels of a head.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from musiva.ops.page_write.reference import page_write_reference
from musiva.ops.page_write.registered import page_write_op

__all__ = ["Pairs", "page_write", "page_write_reference"]

Pairs = Literal["interleaved", "halves"]


@torch.no_grad()
def page_write(
    k_THK: Tensor,
    v_THK: Tensor,
    pages_PN2HK: Tensor,
    slot_T: Tensor,
    *,
    k_norm: tuple[Tensor, float] | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    pairs: Pairs = "interleaved",
) -> None:
    """Write the keys and values of row t into slot slot_T[t] of the slab, in place and in its
    dtype.

    slot_T: int64, page * N + offset; -1 for a row that is not written. No slot may occur twice.
    k_norm: (weight_K, eps); keys are first divided by their root mean square over the channels and
    multiplied by the weight. rotary: (cos_TK, sin_TK); keys are then rotated, channel by channel:
    k * cos + turned(k) * sin, where the pair (a, b) turned is (-b, a). pairs: which channels go
    together, neighbours (0, 1), (2, 3) or those of both halves (0, K / 2), (1, K / 2 + 1). Norm and
    rotation are computed in float32 at least. No gradient flows into pages.

    Raises ValueError for other `pairs` or an odd number of channels to rotate, and on a CPU
    IndexError for a slot that is not there; a GPU does not check slots.
    """
    if pairs not in ("interleaved", "halves"):
        raise ValueError(f'pairs: {pairs!r} is neither "interleaved" nor "halves"')
    if rotary is not None and k_THK.shape[-1] % 2:
        raise ValueError(f"rotary: {k_THK.shape[-1]} channels do not fall into pairs")
    weight_K, eps = (None, 0.0) if k_norm is None else k_norm
    cos_TK, sin_TK = (None, None) if rotary is None else rotary
    page_write_op(
        k_THK, v_THK, pages_PN2HK, slot_T, weight_K, eps, cos_TK, sin_TK, pairs == "interleaved"
    )
