"""act(x W^T + b) by stock PyTorch; differentiable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu

__all__ = ["ACTIVATIONS", "linear_reference"]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(gelu, approximate="tanh"),
    "gelu": gelu,
    "silu": silu,
    "relu": relu,
}


def linear_reference(layer: nn.Linear, x_TD: Tensor, activation: str | None = None) -> Tensor:
    """layer(x), then `activation`: None, or one of ACTIVATIONS."""
    y_TN = layer(x_TD)
    if activation is None:
        return y_TN
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not known")
    return ACTIVATIONS[activation](y_TN)
