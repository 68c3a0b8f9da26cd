"""The evaluations that a number marks: a picture again of which load chose the levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from musiva.core.errors import InvalidInput
from musiva.core.types import COMPUTE, Action
from musiva.policy.adaptive import FIRST, HELD
from musiva.policy.base import Trip
from musiva.policy.fields import check_whole

__all__ = ["Marked", "marked_as"]

MOST = (1 << 1000) - 1


@dataclass(frozen=True)
class Marked:
    """at: bit i is 1 where evaluation i is computed, which the first one always is; the others are
    forecast as by `adaptive`. coarse: 1 if the unconditional branch of the first was on a coarser
    grid.
    """

    at: int = MOST
    coarse: int = 0
    probes = ()
    keep = 2

    def __post_init__(self) -> None:
        check_whole("coarse", self.coarse, 0, 1)
        if not isinstance(self.at, int) or not 0 < self.at <= MOST or not self.at & 1:
            allowed = "an odd number, since the first evaluation is computed, of up to 1000 bits"
            raise InvalidInput("at", self.at, allowed)

    def begin(self, trip: Trip) -> None:
        """Raises InvalidInput for a model that has no such forecasts."""
        every = (1 << trip.num_evaluations) - 1
        if self.at & every != every and not trip.calibrated:
            allowed = "another one: the model has no calibration; `musiva calibrate` makes it"
            raise InvalidInput("policy", "marked", allowed)

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
        if not self.at >> evaluation & 1:
            return HELD
        return FIRST if evaluation == 0 and self.coarse else COMPUTE


def marked_as(actions: Sequence[Action]) -> str:
    """The policy that does again what `adaptive` did, at whatever tolerances."""
    at = sum(1 << i for i, action in enumerate(actions) if action.compute)
    return f"marked:at={at},coarse={int(actions[0].coarse)}"
