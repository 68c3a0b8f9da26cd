"""First-block caching: the model runs in full where its first block says that it has to.

As in ParaAttention's FBCache: what the first block adds is compared with what it added when the
model ran in full last; where it has changed by less than a threshold, what all other blocks added
then is added again. Since the comparison is with the last full run, drift cannot creep past it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.types import COMPUTE, Action, Gate
from musiva.policy.base import Trip
from musiva.policy.fields import check_number, check_whole

__all__ = ["FirstBlock"]


@dataclass(frozen=True)
class FirstBlock:
    """Computes the first `warmup` evaluations; of the others those whose first block has changed by
    at least `threshold`, and at least one after `max_held` that were not computed.
    """

    threshold: float = 0.08
    warmup: int = 2
    max_held: int = 3
    probes = ("first_block",)
    keep = 0

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, 0.0, 1e9)
        check_whole("warmup", self.warmup, 1, 1000)
        check_whole("max_held", self.max_held, 1, 1000)

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
        return 0 if action.full else memory + 1

    def act(self, trip: Trip, memory: int, evaluation: int) -> Action:
        """memory: evaluations held since the last full one."""
        if evaluation < self.warmup or memory >= self.max_held:
            return COMPUTE
        return Action(gate=Gate("first_block", self.threshold))
