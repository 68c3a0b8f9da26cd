"""TeaCache (Liu et al. 2024, arXiv 2411.19108): the model runs in full where its first input has
changed by enough since it did.

The change of the first block's modulated input from one evaluation to the next stands for the
change of the model's output, after a polynomial that is fitted for each model, and is summed up
until it reaches a threshold. Here the polynomial is the identity unless its coefficients are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.types import COMPUTE, Action, Gate
from musiva.policy.base import Trip
from musiva.policy.fields import check_number, check_whole

__all__ = ["TeaCache"]


@dataclass(frozen=True, slots=True)
class Accumulated:
    """held: evaluations since the last full one. change: the rescaled changes of those, summed."""

    held: int = 0
    change: float = 0.0


@dataclass(frozen=True)
class TeaCache:
    """Computes the first `warmup` evaluations and the last one; of the others those at which the
    summed change reaches `threshold`, and at least one after `max_held` that were not computed. A
    change x counts as c4 x^4 + c3 x^3 + c2 x^2 + c1 x + c0.
    """

    threshold: float = 0.1
    warmup: int = 1
    max_held: int = 4
    c4: float = 0.0
    c3: float = 0.0
    c2: float = 0.0
    c1: float = 1.0
    c0: float = 0.0
    probes = ("modulated_input",)
    keep = 0

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, 0.0, 1e9)
        check_whole("warmup", self.warmup, 1, 1000)
        check_whole("max_held", self.max_held, 1, 1000)
        for name in ("c4", "c3", "c2", "c1", "c0"):
            check_number(name, getattr(self, name), -1e9, 1e9)

    @property
    def rescale(self) -> tuple[float, ...]:
        """Coefficients as gates take them; none for the identity."""
        found = (self.c4, self.c3, self.c2, self.c1, self.c0)
        return () if found == (0.0, 0.0, 0.0, 1.0, 0.0) else found

    def begin(self, trip: Trip) -> Accumulated:
        return Accumulated()

    def observe(
        self,
        trip: Trip,
        memory: Accumulated,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float],
    ) -> Accumulated:
        if action.full:
            return Accumulated()
        change = self._gate(0.0).rescaled(measured["modulated_input"])
        return Accumulated(memory.held + 1, memory.change + change)

    def act(self, trip: Trip, memory: Accumulated, evaluation: int) -> Action:
        last = trip.num_evaluations - 1
        if evaluation < self.warmup or evaluation == last or memory.held >= self.max_held:
            return COMPUTE
        return Action(gate=self._gate(memory.change))

    def _gate(self, so_far: float) -> Gate:
        return Gate("modulated_input", self.threshold - so_far, self.rescale)
