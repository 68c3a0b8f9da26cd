"""A policy that computes everything and measures what `adaptive` measures."""

from __future__ import annotations

from collections.abc import Mapping

from musiva.core.types import COMPUTE, Action
from musiva.policy import Trip

__all__ = ["Probed"]


class Probed:
    probes = ("surprise",)
    keep = 2

    def begin(self, trip: Trip) -> None:
        return None

    def observe(
        self,
        trip: Trip,
        memory: None,
        evaluation: int,
        action: Action,
        measured: Mapping[str, object],
    ) -> None:
        return None

    def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
        return COMPUTE
