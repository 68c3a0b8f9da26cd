"""Writing keys and values into pages as it reads: a row at a time.

T rows, P pages of N tokens, H heads, K channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

__all__ = ["page_write_reference"]


def page_write_reference(
    k_THK: Tensor,
    v_THK: Tensor,
    pages_PN2HK: Tensor,
    slot_T: Tensor,
    *,
    k_norm: tuple[Tensor, float] | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    pairs: str = "interleaved",
) -> None:
    """See `page_write`. Computed in the dtype of k."""
    page_size, channels = pages_PN2HK.shape[1], k_THK.shape[-1]
    for t, slot in enumerate(slot_T.tolist()):
        if slot < 0:
            continue
        k_HK = k_THK[t]
        if k_norm is not None:
            k_HK = rms_norm(k_HK, (channels,), k_norm[0], k_norm[1])
        if rotary is not None:
            real, imaginary = (
                (k_HK[:, 0::2], k_HK[:, 1::2])
                if pairs == "interleaved"
                else (k_HK[:, : channels // 2], k_HK[:, channels // 2 :])
            )
            turned_HK = (
                torch.stack([-imaginary, real], -1).flatten(1)
                if pairs == "interleaved"
                else torch.cat([-imaginary, real], -1)
            )
            k_HK = k_HK * rotary[0][t] + turned_HK * rotary[1][t]
        pages_PN2HK[slot // page_size, slot % page_size, 0] = k_HK
        pages_PN2HK[slot // page_size, slot % page_size, 1] = v_THK[t]
