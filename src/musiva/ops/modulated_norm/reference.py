"""The formulas of README.md with a gathered table; T rows, M modulation rows, D width."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import layer_norm

from musiva.core.pack import Rows

__all__ = ["gated_add_reference", "modulated_norm_reference"]


def modulated_norm_reference(
    x_TD: Tensor, shift_MD: Tensor, scale_MD: Tensor, rows: Rows, eps: float
) -> Tensor:
    y_TD = layer_norm(x_TD, x_TD.shape[-1:], eps=eps)
    return y_TD * (1 + rows.to_rows(scale_MD)) + rows.to_rows(shift_MD)


def gated_add_reference(x_TD: Tensor, value_TD: Tensor, gate_MD: Tensor, rows: Rows) -> Tensor:
    return x_TD + rows.to_rows(gate_MD) * value_TD
