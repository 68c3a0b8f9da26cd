"""Writing keys and values into pages by indexed copies, for a CPU.

T rows, P pages of N tokens, H heads, K channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

__all__ = ["page_write_indexed"]


def page_write_indexed(
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
    if weight_K is not None or cos_TK is not None:
        k_THK = k_THK.to(torch.promote_types(k_THK.dtype, torch.float32))
    if weight_K is not None:
        k_THK = rms_norm(k_THK, weight_K.shape, weight_K.to(k_THK.dtype), eps)
    if cos_TK is not None and sin_TK is not None:
        turned_THK = _turned(k_THK, interleaved)
        k_THK = torch.addcmul(k_THK * cos_TK[:, None], turned_THK, sin_TK[:, None])
    written_T = slot_T >= 0
    if not written_T.all():
        k_THK, v_THK, slot_T = k_THK[written_T], v_THK[written_T], slot_T[written_T]
    # Not through a flat view: the pages of one site may be a slice of a larger slab.
    page_T, token_T = slot_T // pages_PN2HK.shape[1], slot_T % pages_PN2HK.shape[1]
    for i, x_THK in enumerate((k_THK, v_THK)):
        pages_PN2HK[:, :, i].index_put_((page_T, token_T), x_THK.to(pages_PN2HK.dtype))


def _turned(x_THK: Tensor, interleaved: bool) -> Tensor:
    """Each pair of channels (a, b) as (-b, a)."""
    if interleaved:
        a, b = x_THK.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([-b, a], -1).flatten(-2)
    a, b = x_THK.chunk(2, -1)
    return torch.cat([-b, a], -1)
