"""Guidance: how the two branches of a sample become one prediction."""

from __future__ import annotations

from torch import Tensor

from musiva.samplers.solvers import as_computed

__all__ = ["guide"]


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), scaled as in diffusers.

    `unconditional + scale * (conditional - unconditional)`: 1 is no guidance, 0 ignores the prompt;
    a negative prompt takes the place of the empty one in the unconditional branch. Any shape, the
    same for both; fp32 (fp64 from fp64).
    """
    base = as_computed(unconditional)
    return base + scale * (as_computed(conditional) - base)
