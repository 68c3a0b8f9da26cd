"""Engines that believe to know what steps cost, so that what they foresee hangs on no machine."""

from __future__ import annotations

from collections.abc import Mapping

from musiva.core.types import Kind
from musiva.cost import CostModel
from musiva.cost.work import FEATURES
from musiva.engine import Engine, Scheduler

__all__ = ["priced"]


def priced(
    seconds: float,
    *,
    discipline: str = "goodput",
    max_rows: int = 4096,
    shares: Mapping[str, float] | None = None,
) -> Engine.Config:
    """A configuration by which an evaluation of a sample takes so many seconds, and nothing else
    takes any.
    """
    weights = {
        kind: tuple(
            seconds if (kind, name) == (Kind.DENOISE, "branches") else 0.0
            for name in FEATURES[kind]
        )
        for kind in Kind
    }
    scheduler = Scheduler.Config(
        discipline=discipline, cost=CostModel(weights), max_rows=max_rows, shares=shares or {}
    )
    return Engine.Config(scheduler=scheduler)
