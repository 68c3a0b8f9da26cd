"""Attention by plain matrix products: for bfloat16 on a CPU.

There `scaled_dot_product_attention` is no faster in bfloat16 than in float32. Scores here are
float32 products, softmax is float32, and only the weights are rounded before they meet the values,
as in the fused kernel. G groups, L queries, M keys, H heads, K channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attend_by_heads", "prefers_heads"]

# The scores of all heads together stay in the cache up to so many keys (a prompt); one head at a
# time is worth its calls from so many on (a picture). Between the two the fused kernel wins.
AT_ONCE = 64
ONE_BY_ONE = 192


def prefers_heads(q_GLHK: Tensor, k_GMHK: Tensor) -> bool:
    """Depends on the keys of a group alone, so that a sample's kernel never depends on its pack."""
    if q_GLHK.device.type != "cpu" or q_GLHK.dtype is not torch.bfloat16 or torch.is_grad_enabled():
        return False
    return not AT_ONCE < k_GMHK.shape[1] < ONE_BY_ONE


def attend_by_heads(q_GLHK: Tensor, k_GMHK: Tensor, v_GMHK: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v for each group and head, contiguous. Not differentiable."""
    out_GLHK = torch.empty(q_GLHK.shape, dtype=q_GLHK.dtype)
    attend = _at_once if k_GMHK.shape[1] <= AT_ONCE else _one_by_one
    for q_LHK, k_MHK, v_MHK, out_LHK in zip(q_GLHK, k_GMHK, v_GMHK, out_GLHK, strict=True):
        attend(q_LHK, k_MHK, v_MHK, out_LHK)
    return out_GLHK


def _at_once(q_LHK: Tensor, k_MHK: Tensor, v_MHK: Tensor, out_LHK: Tensor) -> None:
    q_HLK = q_LHK.transpose(0, 1).float().mul_(q_LHK.shape[-1] ** -0.5)
    score_HLM = torch.bmm(q_HLK, k_MHK.permute(1, 2, 0).float())
    weight_HLM = score_HLM.softmax(-1).to(v_MHK.dtype)
    out_LHK.copy_(torch.bmm(weight_HLM, v_MHK.transpose(0, 1)).transpose(0, 1))


def _one_by_one(q_LHK: Tensor, k_MHK: Tensor, v_MHK: Tensor, out_LHK: Tensor) -> None:
    # One buffer for all heads: a fresh one each would be mapped and cleared by the system.
    score_LM = torch.empty(q_LHK.shape[0], k_MHK.shape[0])
    scale = q_LHK.shape[-1] ** -0.5
    for q_LK, k_MK, v_MK, out_LK in zip(
        *(x.unbind(1) for x in (q_LHK, k_MHK, v_MHK, out_LHK)), strict=True
    ):
        torch.addmm(score_LM, q_LK.float(), k_MK.float().T, beta=0, alpha=scale, out=score_LM)
        torch.softmax(score_LM, -1, out=score_LM)
        torch.mm(score_LM.to(v_MK.dtype), v_MK, out=out_LK)
