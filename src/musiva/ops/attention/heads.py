"""Attention by plain matrix products: for bfloat16 on a CPU.

There `scaled_dot_product_attention` is no faster in bfloat16 than in float32. Scores here are
float32 products, softmax is float32, and only the weights are rounded before they meet the values,
as in the fused kernel. G groups, L queries, M keys, H heads, K channels of a head, N heads at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attend_by_heads", "prefers_heads"]

# Heads go together as long as their scores stay in the cache: about so many keys in all.
KEYS_AT_ONCE = 512
# Few keys (a prompt) and many (a picture); between the two the fused kernel wins.
FEW, MANY = 64, 192


def prefers_heads(q_GLHK: Tensor, k_GMHK: Tensor) -> bool:
    """Depends on the keys of a group alone, so that a sample's kernel never depends on its pack."""
    if q_GLHK.device.type != "cpu" or q_GLHK.dtype is not torch.bfloat16 or torch.is_grad_enabled():
        return False
    return not FEW < k_GMHK.shape[1] < MANY


def attend_by_heads(q_GLHK: Tensor, k_GMHK: Tensor, v_GMHK: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v for each group and head, contiguous. Not differentiable."""
    (groups, rows, heads, channels), keys = q_GLHK.shape, k_GMHK.shape[1]
    step, scale = min(max(KEYS_AT_ONCE // keys, 1), heads), channels**-0.5
    out_GLHK = torch.empty(q_GLHK.shape, dtype=q_GLHK.dtype)
    # One buffer for all: a fresh one each time would be mapped and cleared by the system.
    score_NLM = torch.empty(step, rows, keys)
    weight_NLM = torch.empty(step, rows, keys, dtype=v_GMHK.dtype)
    for g in range(groups):
        q_HLK, k_HMK, v_HMK, out_HLK = (
            x[g].transpose(0, 1) for x in (q_GLHK, k_GMHK, v_GMHK, out_GLHK)
        )
        for first in range(0, heads, step):
            at = slice(first, first + step)
            score, weight = (x[: min(step, heads - first)] for x in (score_NLM, weight_NLM))
            k_NKM = k_HMK[at].float().transpose(1, 2)
            torch.baddbmm(score, q_HLK[at].float(), k_NKM, beta=0, alpha=scale, out=score)
            weight.copy_(torch.softmax(score, -1, out=score))
            out_HLK[at] = torch.bmm(weight, v_HMK[at])
    return out_GLHK
