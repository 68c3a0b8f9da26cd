"""A fixed interval with a forecast between: TaylorSeer on the prediction of the whole model.

Liu et al. 2025 (arXiv 2503.06923) forecast each module's output by differences over the step index;
here the data prediction alone is forecast, by divided differences over the place on the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.errors import InvalidInput
from musiva.core.types import COMPUTE, Action
from musiva.policy.base import Trip

__all__ = ["Interval"]


@dataclass(frozen=True)
class Interval:
    """Computes the first `warmup` evaluations, then every `interval`-th; forecasts of `order`
    between.
    """

    interval: int = 4
    warmup: int = 3
    order: int = 1
    probes = ()

    def __post_init__(self) -> None:
        for name, low, high in (("interval", 1, 1000), ("warmup", 1, 1000), ("order", 0, 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InvalidInput(name, value, f"a whole number from {low} to {high}")

    @property
    def keep(self) -> int:
        return self.order + 1

    def begin(self, trip: Trip) -> None:
        return None

    def observe(
        self, trip: Trip, memory: None, evaluation: int, measured: Mapping[str, float]
    ) -> None:
        return None

    def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
        since = evaluation - (self.warmup - 1)
        return COMPUTE if since <= 0 or since % self.interval == 0 else Action(False, self.order)
