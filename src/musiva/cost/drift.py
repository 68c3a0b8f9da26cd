"""How far a machine has drifted from what was profiled: it gets warm, or others use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from musiva.core.types import Kind

__all__ = ["Drift"]

# A step weighs by its own seconds against these: of the machine, which others slow down within a
# fraction of a second, and of a kind of step, by which a cost model is wrong for longer.
MACHINE_SECONDS, KIND_SECONDS = 0.15, 5.0
# An error counts up to so many times the usual one (Huber 1964), which each step moves by a share.
HUBER, FIRST_USUAL, USUAL_SHARE = 2.0, 0.1, 0.05
LIMIT = math.log(16.0)


@dataclass(frozen=True, slots=True)
class Drift:
    """Logarithms of measured over predicted seconds: of the machine, whatever it does, and of each
    kind of step beside that. usual: the mean size of what neither foretells.
    """

    machine: float = 0.0
    kinds: Mapping[Kind, float] = field(default_factory=dict)
    usual: float = FIRST_USUAL

    def factor(self, kind: Kind) -> float:
        return math.exp(self.machine + self.kinds.get(kind, 0.0))

    def after(self, kind: Kind, predicted: float, seconds: float) -> Drift:
        """With one more step, which a model without drift said would take `predicted`."""
        if predicted <= 0.0 or seconds <= 0.0:
            return self
        own = self.kinds.get(kind, 0.0)
        error = math.log(seconds / predicted) - self.machine - own
        counted = _limited(error, HUBER * self.usual)
        of_machine = _share(seconds, MACHINE_SECONDS) * counted
        of_kind = _share(seconds, KIND_SECONDS) * (counted - of_machine)
        machine = _limited(self.machine + of_machine, LIMIT)
        kinds = {**self.kinds, kind: _limited(own + of_kind, LIMIT)}
        usual = self.usual + USUAL_SHARE * (abs(error) - self.usual)
        return Drift(machine, kinds, usual)


def _share(seconds: float, memory: float) -> float:
    return seconds / (seconds + memory)


def _limited(value: float, limit: float) -> float:
    return max(min(value, limit), -limit)
