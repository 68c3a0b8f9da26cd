"""Linears by the kernel chosen for this machine. T rows, D width in, N width out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from musiva.ops.linear.reference import linear_reference

__all__ = ["Kernel", "Linears"]

Kernel = Literal["plain", "prepacked"]
# oneDNN lays weights out for about this many rows; the layout does not change with the rows of a
# call.
TYPICAL_ROWS = 512
# What oneDNN calls activations, each with its algorithm.
FUSED = {
    None: ("none", ""),
    "gelu_tanh": ("gelu", "tanh"),
    "gelu": ("gelu", "none"),
    "silu": ("swish", ""),
    "relu": ("relu", ""),
}


class Linears:
    """Runs the linear layers of one worker, and owns what it prepacked of them.

    A layer is packed at its first call, so its weights must not change any more. Under gradients,
    and on other devices than the CPU, layers run as they are.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel: Kernel = kernel
        self._packed: dict[nn.Linear, Tensor] = {}
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the prepacked copies."""
        return self._nbytes

    def __call__(self, layer: nn.Linear, x_TD: Tensor, activation: str | None = None) -> Tensor:
        """[T, D] -> [T, N]: layer(x), then `activation`: None, or one of ACTIVATIONS."""
        if self.kernel == "plain" or torch.is_grad_enabled() or x_TD.device.type != "cpu":
            return linear_reference(layer, x_TD, activation)
        if activation not in FUSED:
            raise ValueError(f"activation {activation!r} is not known")
        packed = self._packed.get(layer)
        if packed is None:
            packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), TYPICAL_ROWS)
            self._packed[layer] = packed
            self._nbytes += layer.weight.nbytes
        name, algorithm = FUSED[activation]
        return torch.ops.mkldnn._linear_pointwise(x_TD, packed, layer.bias, name, [], algorithm)
