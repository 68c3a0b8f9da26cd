"""`torch.ops.musiva.page_write`: what a trace of the model sees, and what a GPU runs.

Defined as `ops/paged_attention/registered.py` says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.ops.page_write.indexed import page_write_indexed

__all__ = ["page_write_op"]

NAME = "musiva::page_write"
torch.library.define(
    NAME,
    "(Tensor k_THK, Tensor v_THK, Tensor(a!) pages_PN2HK, Tensor slot_T, Tensor? weight_K,"
    " float eps, Tensor? cos_TK, Tensor? sin_TK, bool interleaved) -> ()",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.impl(NAME, "CPU", page_write_indexed)


@torch.library.impl(NAME, "CUDA")
def _on_cuda(
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
    from musiva.ops.page_write.triton import page_write_triton

    with torch.cuda.device_of(k_THK):
        page_write_triton(
            k_THK, v_THK, pages_PN2HK, slot_T, weight_K, eps, cos_TK, sin_TK, interleaved
        )


@torch.library.register_fake(NAME)
def _fake(
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
    return None


page_write_op = torch.ops.musiva.page_write.default
