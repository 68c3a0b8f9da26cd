"""A fixed interval with a forecast between: TaylorSeer on the prediction of the whole model.

Liu et al. 2025 (arXiv 2503.06923) forecast each module's output by differences over the step index;
here the data prediction alone is forecast, by divided differences over the place on the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.types import Action
from musiva.policy.base import Trip
from musiva.policy.fields import check_whole

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
        for name in ("interval", "warmup", "guidance"):
            check_whole(name, getattr(self, name), 1, 1000)
        check_whole("order", self.order, 0, 2)

    @property
    def keep(self) -> int:
        return self.order + 1

    def begin(self, trip: Trip) -> int:
        return 0

    def observe(
        self,
        trip: Trip,
        memory: int,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float],
    ) -> int:
        return memory + 1

    def act(self, trip: Trip, memory: int, evaluation: int) -> Action:
        """memory: evaluations computed so far."""
        since = evaluation - (self.warmup - 1)
        if since > 0 and since % self.interval:
            return Action(compute=False, order=self.order)
        borrow = trip.guided and memory % self.guidance != 0
        return Action(compute=True, order=self.order, borrow=borrow)
