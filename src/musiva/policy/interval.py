"""A fixed interval with a forecast between: TaylorSeer on the prediction of the whole model.

Liu et al. 2025 (arXiv 2503.06923) forecast each module's output by differences over the step index;
here the data prediction alone is forecast, by divided differences over the place on the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.errors import InvalidInput
from musiva.core.types import Action
from musiva.policy.base import Trip

__all__ = ["Interval"]


@dataclass(frozen=True)
class Interval:
    """Computes the first `warmup` evaluations, then every `interval`-th; forecasts of `order`
    between. Of those that are computed, every `guidance`-th has its unconditional branch computed.
    """

    interval: int = 4
    warmup: int = 3
    order: int = 1
    guidance: int = 1
    probes = ()

    def __post_init__(self) -> None:
        limits = {"interval": 1000, "warmup": 1000, "guidance": 1000, "order": 2}
        for name, high in limits.items():
            value, low = getattr(self, name), 0 if name == "order" else 1
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InvalidInput(name, value, f"a whole number from {low} to {high}")

    @property
    def keep(self) -> int:
        return self.order + 1

    def begin(self, trip: Trip) -> int:
        return 0

    def observe(
        self, trip: Trip, memory: int, evaluation: int, measured: Mapping[str, float]
    ) -> int:
        return memory + 1

    def act(self, trip: Trip, memory: int, evaluation: int) -> Action:
        """memory: evaluations computed so far."""
        since = evaluation - (self.warmup - 1)
        if since > 0 and since % self.interval:
            return Action(compute=False, order=self.order)
        borrow = trip.guided and memory % self.guidance != 0
        return Action(compute=True, order=self.order, borrow=borrow)
