"""Disciplines by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from musiva.engine.scheduler.base import Discipline
from musiva.engine.scheduler.goodput import Goodput
from musiva.engine.scheduler.rivals import (
    EarliestDue,
    EarliestDueAdmitted,
    Fifo,
    Shortest,
    Static,
)

__all__ = ["DISCIPLINES"]

# Made with the weights of tenants, which only one of them knows.
DISCIPLINES: Mapping[str, Callable[[tuple[tuple[str, float], ...]], Discipline]] = MappingProxyType(
    {
        "goodput": lambda shares: Goodput(shares=shares),
        "fifo": lambda _: Fifo(),
        "shortest": lambda _: Shortest(),
        "edf": lambda _: EarliestDue(),
        "edf_admission": lambda _: EarliestDueAdmitted(),
        "static": lambda _: Static(),
    }
)
