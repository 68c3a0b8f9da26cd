"""Guidance: how the two branches of a sample become one prediction."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from musiva.samplers.solvers import as_computed

__all__ = ["Rule", "guide"]

Rule: TypeAlias = Literal["linear", "kept_norm"]


def guide(
    conditional: Tensor, unconditional: Tensor, scale: float, rule: Rule = "linear"
) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), scaled as in diffusers.

    `unconditional + scale * (conditional - unconditional)`: 1 is no guidance, 0 ignores the prompt;
    a negative prompt takes the place of the empty one in the unconditional branch. Any shape, the
    same for both; fp32 (fp64 from fp64).

    rule: "kept_norm" gives each vector of the last axis, a token, the length that it has in the
    conditional branch (Qwen-Image).
    """
    base, wanted = as_computed(unconditional), as_computed(conditional)
    guided = base + scale * (wanted - base)
    if rule == "linear":
        return guided
    return F.normalize(guided, dim=-1) * wanted.norm(dim=-1, keepdim=True)
