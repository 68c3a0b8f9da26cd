"""How far a machine has drifted from what was profiled: it gets warm, or others use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from musiva.core.types import Kind

__all__ = ["Drift"]

# Of the logarithm; a step weighs by its own seconds against these.
MEMORY_SECONDS = 2.0
LIMIT = math.log(16.0)


@dataclass(frozen=True, slots=True)
class Drift:
    """The mean logarithm of measured over predicted seconds, by kind of step, of the last few
    seconds of such steps. Short ones count little: what disturbs them is not how fast the machine
    is.
    """

    logarithms: Mapping[Kind, float] = field(default_factory=dict)

    def factor(self, kind: Kind) -> float:
        return math.exp(self.logarithms.get(kind, 0.0))

    def after(self, kind: Kind, predicted: float, seconds: float) -> Drift:
        """With one more step, which a model without drift said would take `predicted`."""
        if predicted <= 0.0 or seconds <= 0.0:
            return self
        last = self.logarithms.get(kind, 0.0)
        share = seconds / (seconds + MEMORY_SECONDS)
        now = last + share * (math.log(seconds / predicted) - last)
        return replace(self, logarithms={**self.logarithms, kind: max(min(now, LIMIT), -LIMIT)})
