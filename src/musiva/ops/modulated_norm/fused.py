"""Modulated norm and gated add, a broadcast per segment; T rows, M modulation rows, D width."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from musiva.core.pack import Rows
from musiva.ops.modulated_norm.reference import gated_add_reference, modulated_norm_reference

__all__ = ["gated_add", "modulated_norm"]


def modulated_norm(
    x_TD: Tensor, shift_MD: Tensor, scale_MD: Tensor, rows: Rows, eps: float
) -> Tensor:
    """norm(x) * (1 + scale) + shift, shift and scale looked up per row. [T, D] -> [T, D]."""
    if not _broadcasts(rows):
        return modulated_norm_reference(x_TD, shift_MD, scale_MD, rows, eps)
    normed_TD = layer_norm(x_TD, x_TD.shape[-1:], eps=eps)
    return _multiply_add(shift_MD, normed_TD, 1 + scale_MD, rows, add_per_row=False)


def gated_add(x_TD: Tensor, value_TD: Tensor, gate_MD: Tensor, rows: Rows) -> Tensor:
    """x + gate * value, gate looked up per row. [T, D] -> [T, D]."""
    if not _broadcasts(rows):
        return gated_add_reference(x_TD, value_TD, gate_MD, rows)
    return _multiply_add(x_TD, value_TD, gate_MD, rows, add_per_row=True)


def _broadcasts(rows: Rows) -> bool:
    """Uneven segments write into one buffer, which autograd cannot follow."""
    return rows.uniform_pitch is not None or not torch.is_grad_enabled()


def _multiply_add(
    add: Tensor, x_TD: Tensor, factor_MD: Tensor, rows: Rows, *, add_per_row: bool
) -> Tensor:
    """add + x * factor; factor, and add too unless it is [T, D], are looked up per row."""
    count = len(rows.segments)
    if rows.uniform_pitch is not None:
        x_MLD = x_TD.unflatten(0, (count, rows.uniform_pitch))
        add_MLD = add.view_as(x_MLD) if add_per_row else add[:count, None]
        return torch.addcmul(add_MLD, x_MLD, factor_MD[:count, None]).flatten(0, 1)
    out_TD = torch.empty_like(x_TD)
    for i, s in enumerate(rows.segments):
        # The padding behind the last segment is computed along with it, so that no row is left
        # undefined.
        at = slice(s.start, s.start + s.pitch if i + 1 < count else rows.num_rows)
        torch.addcmul(add[at] if add_per_row else add[i], x_TD[at], factor_MD[i], out=out_TD[at])
    return out_TD
