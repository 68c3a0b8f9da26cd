"""How fast a machine was through a run: others use it too, so that no two runs are alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from musiva.core.types import StepPlan, StepResult
from musiva.cost import CostModel
from musiva.engine import StepLoop
from musiva.engine.scheduler.prices import work_of
from musiva.perf.traffic.clock import RealClock

__all__ = ["Pace"]


class Pace(RealClock):
    """A clock that notes, second by second, how much longer steps took than a cost model says,
    with all that a loop does between two of them. `observe` is for the loop, `loop` is that.
    """

    def __init__(self, cost: CostModel) -> None:
        self.cost = cost
        self.loop: StepLoop | None = None
        self._start = self._free = self.now()
        self._taken: dict[int, float] = defaultdict(float)
        self._expected: dict[int, float] = defaultdict(float)

    def wait_until(self, at: float) -> None:
        super().wait_until(at)
        self._free = self.now()

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        assert self.loop is not None, "it is told of the loop that it works for"
        end = self.now()
        second = int(end - self._start)
        self._taken[second] += end - self._free
        self._expected[second] += self.cost.seconds(work_of(plan, self.loop.state))
        self._free = end

    def factors(self) -> Sequence[float]:
        """Of each second of the run; one in which no step ended is like the one before."""
        found, last = [], 1.0
        for second in range(max(self._taken, default=-1) + 1):
            if self._expected[second] > 0.0:
                last = self._taken[second] / self._expected[second]
            found.append(last)
        return found
