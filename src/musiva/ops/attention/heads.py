"""Attention one head at a time, by plain matrix products: for bfloat16 on a CPU.

There `scaled_dot_product_attention` is no faster in bfloat16 than in float32. Scores here are
float32 products, softmax is float32, and only the weights are rounded before they meet the values,
as in the fused kernel; each head's scores stay in the cache. G groups, L queries, M keys, H heads,
K channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attend_by_heads", "prefers_heads"]

# Below this many keys the fused kernel wins: a product per head costs some microseconds each.
FEWEST_KEYS = 192


def prefers_heads(q_GLHK: Tensor, k_GMHK: Tensor) -> bool:
    """Depends on the keys of a group alone, so that a sample's kernel never depends on its pack."""
    on_cpu_in_bfloat16 = q_GLHK.device.type == "cpu" and q_GLHK.dtype is torch.bfloat16
    return on_cpu_in_bfloat16 and k_GMHK.shape[1] >= FEWEST_KEYS and not torch.is_grad_enabled()


def attend_by_heads(q_GLHK: Tensor, k_GMHK: Tensor, v_GMHK: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v for each group and head: [G, L, H, K], contiguous. Not
    differentiable.
    """
    out_GLHK = torch.empty(q_GLHK.shape, dtype=q_GLHK.dtype)
    scale = q_GLHK.shape[-1] ** -0.5
    # One buffer for all heads: a fresh one each would be mapped and cleared by the system every
    # time.
    score_LM = torch.empty(q_GLHK.shape[1], k_GMHK.shape[1])
    for g in range(q_GLHK.shape[0]):
        for h in range(q_GLHK.shape[2]):
            q_LK, k_MK = q_GLHK[g, :, h].float().mul_(scale), k_GMHK[g, :, h].float()
            torch.mm(q_LK, k_MK.T, out=score_LM)
            torch.softmax(score_LM, -1, out=score_LM)
            torch.mm(score_LM.to(v_GMHK.dtype), v_GMHK[g, :, h], out=out_GLHK[g, :, h])
    return out_GLHK
