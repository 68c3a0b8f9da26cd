"""Adaptive layer norm over packs: norm, then scale and shift looked up per row; and the gated
add. T rows, M modulation rows, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.core.pack import Rows
from musiva.ops.backend import uses_triton
from musiva.ops.modulated_norm import fused
from musiva.ops.modulated_norm.reference import gated_add_reference, modulated_norm_reference

__all__ = ["gated_add", "gated_add_reference", "modulated_norm", "modulated_norm_reference"]


def modulated_norm(
    x_TD: Tensor, shift_MD: Tensor, scale_MD: Tensor, rows: Rows, eps: float
) -> Tensor:
    """norm(x) * (1 + scale) + shift, shift and scale looked up per row. [T, D] -> [T, D]."""
    if uses_triton(x_TD, shift_MD, scale_MD):
        from musiva.ops.modulated_norm.triton import modulated_norm_triton

        with torch.cuda.device_of(x_TD):
            return modulated_norm_triton(x_TD, shift_MD, scale_MD, rows.segment_T, eps)
    return fused.modulated_norm(x_TD, shift_MD, scale_MD, rows, eps)


def gated_add(x_TD: Tensor, value_TD: Tensor, gate_MD: Tensor, rows: Rows) -> Tensor:
    """x + gate * value, gate looked up per row. [T, D] -> [T, D]."""
    if uses_triton(x_TD, value_TD, gate_MD):
        from musiva.ops.modulated_norm.triton import gated_add_triton

        with torch.cuda.device_of(x_TD):
            return gated_add_triton(x_TD, value_TD, gate_MD, rows.segment_T)
    return fused.gated_add(x_TD, value_TD, gate_MD, rows)
