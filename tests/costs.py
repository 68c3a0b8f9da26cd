"""Machines that are made up."""

from __future__ import annotations

from musiva.core.types import Kind
from musiva.cost import CostModel
from musiva.cost.work import FEATURES

__all__ = ["linear_cost"]


def linear_cost(
    *, row: float = 1e-3, step: float = 0.0, decode: float = 0.02, pixel: float = 0.0
) -> CostModel:
    """Seconds of a row that goes through the model, of a step that does so, and of a picture and of
    a pixel that are decoded; prompts cost nothing.
    """

    def weights(kind: Kind, **known: float) -> tuple[float, ...]:
        return tuple(known.get(name, 0.0) for name in FEATURES[kind])

    return CostModel(
        {
            Kind.ENCODE: weights(Kind.ENCODE),
            Kind.DENOISE: weights(Kind.DENOISE, rows=row, forward=step),
            Kind.DECODE: weights(Kind.DECODE, items=decode, pixels=pixel),
        }
    )
