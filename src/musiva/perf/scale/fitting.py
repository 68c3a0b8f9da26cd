"""What a machine adds to its cost model, fitted to runs of real fleets on it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

from musiva.engine import Scheduler, Workers
from musiva.perf.measure import percentile
from musiva.perf.scale.cluster import Cluster
from musiva.perf.scale.fleet import simulate_fleet
from musiva.perf.scale.setting import Setting
from musiva.perf.traffic import Fate, Wanted

__all__ = ["Run", "Times", "fitted"]

# What is fitted, and by how much it is changed at first; half as much when that helps no more.
CHANGES: Mapping[str, float] = {"rate": 0.1, "company": 0.1, "step": 1e-3}
LEAST = 1 / 8
# What the 95th percentile counts beside the mean.
TAIL = 0.25


@dataclass(frozen=True, slots=True)
class Times:
    """Of a trace. mean, p95: seconds from the arrival of a request to its picture. span: seconds
    until the last one.
    """

    mean: float
    p95: float
    span: float

    @classmethod
    def of(cls, fates: Sequence[Fate]) -> Times:
        """Of pictures that all came."""
        taken = [fate.seconds for fate in fates if fate.seconds is not None]
        assert len(taken) == len(fates), "all of these pictures come, whenever that is"
        ends = (fate.asked.at + t for fate, t in zip(fates, taken, strict=True))
        return cls(statistics.fmean(taken), percentile(taken, 95), max(ends))

    @classmethod
    def median(cls, several: Sequence[Times]) -> Times:
        """Of each, of several runs of one trace."""
        return cls(*map(statistics.median, zip(*map(astuple, several), strict=True)))


@dataclass(frozen=True, slots=True)
class Run:
    """A trace, and what a real fleet of so many workers made of it."""

    workers: Workers
    trace: Sequence[Wanted]
    measured: Times

    def simulated(self, cluster: Cluster, scheduler: Scheduler.Config) -> Times:
        setting = Setting(workers=self.workers, cluster=cluster, scheduler=scheduler)
        return Times.of(simulate_fleet(setting, self.trace).fates)


def fitted(runs: Sequence[Run], start: Cluster, scheduler: Scheduler.Config) -> Cluster:
    """The cluster with which simulations come nearest to the runs: by turns each of `CHANGES` is
    tried up and down (a pattern search: Hooke and Jeeves 1961).
    """
    best, least, scale = start, _miss(runs, start, scheduler), 1.0
    while scale >= LEAST:
        before = least
        for name, change in CHANGES.items():
            for way in (scale, -scale):
                value = getattr(best, name) + way * change
                if value < 0.0 or (name == "rate" and value <= 0.0):
                    continue
                tried = replace(best, **{name: value})
                miss = _miss(runs, tried, scheduler)
                if miss < least:
                    best, least = tried, miss
                    break
        if least >= before:
            scale /= 2
    return best


def _miss(runs: Sequence[Run], cluster: Cluster, scheduler: Scheduler.Config) -> float:
    """How far simulations are from runs: of logarithms, so that half counts as much as twice."""
    total = 0.0
    for run in runs:
        found = run.simulated(cluster, scheduler)
        total += math.log(found.mean / run.measured.mean) ** 2
        total += TAIL * math.log(found.p95 / run.measured.p95) ** 2
    return total / len(runs)
