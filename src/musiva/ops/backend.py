"""Which backend an operator takes, where it has more than plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["uses_triton"]


def uses_triton(*tensors: Tensor) -> bool:
    """Whether plain PyTorch gives way to a Triton kernel, which computes in float32: for CUDA
    tensors of no wider dtype and without gradients. Never inside `torch.compile`, which fuses the
    plain form with what stands around it.
    """
    if tensors[0].device.type != "cuda" or torch.compiler.is_compiling():
        return False
    if tensors[0].element_size() > 4:
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
