"""The dense run: everything is computed, nothing is reused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.types import COMPUTE, Action
from musiva.policy.base import Trip

__all__ = ["Never"]


@dataclass(frozen=True)
class Never:
    probes = ()
    keep = 0

    def begin(self, trip: Trip) -> None:
        return None

    def observe(
        self,
        trip: Trip,
        memory: None,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float],
    ) -> None:
        return None

    def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
        return COMPUTE
