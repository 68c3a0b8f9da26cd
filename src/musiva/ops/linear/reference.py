"""act(x W^T + b) by stock PyTorch; differentiable."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu

__all__ = ["linear_reference"]


def linear_reference(layer: nn.Linear, x_TD: Tensor, activation: str | None = None) -> Tensor:
    """layer(x), then `activation`: None or "gelu_tanh"."""
    y_TN = layer(x_TD)
    if activation is None:
        return y_TN
    if activation != "gelu_tanh":
        raise ValueError(f"activation {activation!r} is not known")
    return gelu(y_TN, approximate="tanh")
