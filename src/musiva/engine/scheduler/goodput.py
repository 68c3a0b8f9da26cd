"""On time and at the floor or above: quality is the valve.

Order: earliest due first, which keeps all deadlines whenever any order does on one device that may
change at step ends (Liu and Layland 1973; Dertouzos 1974). What is hopeless yields to what is not,
at its floor. Level: ahead of need the most exact one at which arrivals like the latest fill `ahead`
of the device's time; by need lower, least surprising samples first, until all before a deadline
fits.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from musiva.engine.sample import SampleState, Stage
from musiva.engine.scheduler.base import Turn, Verdict, View
from musiva.engine.scheduler.order import Promises, by_due, hopeful_by_due, is_hopeless, slacks
from musiva.engine.scheduler.shares import over_share

__all__ = ["Goodput"]

# Arrivals, in number, that count as a past without any before there is one.
CALM = 4
# Exactnesses that are tried ahead of need.
GRID = 20


@dataclass(frozen=True)
class Goodput:
    """ahead: the share of the device's time that the latest arrivals may fill. reserve: of all work
    before a deadline, what is kept free for what it may take longer; crowd: the same of what is
    before a request that asks to be let in, with all at their floors. shares: weights of tenants; 1
    for others.
    """

    ahead: float = 0.4
    reserve: float = 0.5
    crowd: float = 1.0
    shares: tuple[tuple[str, float], ...] = ()

    def turns(self, view: View) -> Sequence[Turn]:
        samples = list(view.state.samples.values())
        exactness = self._exactness(view)
        lost = {sample.id for sample in samples if is_hopeless(view, sample)}
        order = by_due(view, samples, lost)
        hopeless = [sample.id in lost for sample in order]
        levels = [
            _level(0.0 if late else exactness, len(sample.policies))
            for sample, late in zip(order, hopeless, strict=True)
        ]
        works = self._lowered(view, order, levels, hopeless)
        return [
            Turn(sample, level, slack)
            for sample, level, slack in zip(order, levels, slacks(view, order, works), strict=True)
        ]

    def verdict(self, view: View, samples: Sequence[SampleState]) -> Verdict:
        verdict = Promises(hopeful_by_due, -1, self.crowd).verdict(view, samples)
        if verdict.refusal is None and (why := over_share(view, samples, dict(self.shares))):
            return Verdict(verdict.finish, why, verdict.finish, "share")
        return verdict

    def _exactness(self, view: View) -> float:
        """From 0, all at their floors, to 1, all at their ceilings."""
        arrivals = view.state.arrivals
        if not arrivals:
            return 1.0
        densest = [arrival.work[0] for arrival in arrivals]
        span = view.now - arrivals[0].at + CALM * sum(densest) / len(densest)
        # Those of as many levels are summed up once, not at each exactness that is tried.
        alike: dict[int, list[tuple[float, ...]]] = {}
        for arrival in arrivals:
            alike.setdefault(len(arrival.work), []).append(arrival.work)
        totals = [[sum(level) for level in zip(*works, strict=True)] for works in alike.values()]

        def work(part: int) -> float:
            return sum(total[_level(part / GRID, len(total))] for total in totals)

        # Less exact is never more work.
        return (bisect_right(range(1, GRID + 1), self.ahead * span, key=work)) / GRID

    def _lowered(
        self,
        view: View,
        order: Sequence[SampleState],
        levels: list[int],
        hopeless: Sequence[bool],
    ) -> list[float]:
        """Lower levels until all before each deadline that can be kept fits; the seconds that each
        sample takes.
        """
        prices, scale = view.prices, 1.0 + self.reserve
        works = [prices.left(sample, level) for sample, level in zip(order, levels, strict=True)]
        # Those that may go lower: the most exact first, of these the least surprising.
        may_lower: list[tuple[int, float, int]] = []
        cursor = view.now
        for i, sample in enumerate(order):
            cursor += works[i] * scale
            if sample.stage is Stage.DENOISING and levels[i] + 1 < len(sample.policies):
                heapq.heappush(may_lower, (levels[i], sample.surprise, i))
            if sample.deadline is None or hopeless[i]:
                continue
            while cursor > sample.deadline and may_lower:
                _, surprise, j = heapq.heappop(may_lower)
                levels[j] += 1
                lower = prices.left(order[j], levels[j])
                cursor -= (works[j] - lower) * scale
                works[j] = lower
                if levels[j] + 1 < len(order[j].policies):
                    heapq.heappush(may_lower, (levels[j], surprise, j))
        return works


def _level(exactness: float, count: int) -> int:
    """Out of `count`, of which 0 is the most exact."""
    return min(int((1.0 - exactness) * count), count - 1)
