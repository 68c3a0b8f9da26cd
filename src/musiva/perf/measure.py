"""Timings that compare: baseline and candidate take turns in one process, and the median ratio is
the figure.
"""

from __future__ import annotations

import logging
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from musiva.core.errors import Unavailable

__all__ = ["MAX_LOAD", "Comparison", "check_load", "compare", "percentile", "upper_bound"]

log = logging.getLogger(__name__)
MAX_LOAD = 0.5
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Comparison:
    """ratio: median of candidate over baseline within pairs. upper: one-sided 95 % bound of that
    median.

    Seconds are the medians of each.
    """

    ratio: float
    upper: float
    pairs: int
    baseline_seconds: float
    candidate_seconds: float


def compare(
    candidate: Callable[[], object],
    baseline: Callable[[], object],
    *,
    pairs: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time `pairs` pairs after `warmup` calls of each; every second pair starts with the candidate,
    so that neither always follows the other's caches.
    """
    for _ in range(warmup):
        baseline()
        candidate()
    taken: dict[str, list[float]] = {"baseline": [], "candidate": []}
    order = [("baseline", baseline), ("candidate", candidate)]
    for _ in range(pairs):
        for name, call in order:
            start = clock()
            call()
            taken[name].append(clock() - start)
        order.reverse()
    ratios = [c / b for c, b in zip(taken["candidate"], taken["baseline"], strict=True)]
    return Comparison(
        ratio=statistics.median(ratios),
        upper=upper_bound(ratios),
        pairs=pairs,
        baseline_seconds=statistics.median(taken["baseline"]),
        candidate_seconds=statistics.median(taken["candidate"]),
    )


def upper_bound(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> float:
    """Upper confidence bound of the median by the percentile bootstrap (Efron, 1979); the same
    values give the same.
    """
    draw = random.Random(seed)
    medians = [statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return percentile(medians, 100 * confidence)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(-(-len(ranked) * percent // 100), 1).__int__() - 1]


def check_load(*, quick: bool, load: Callable[[], float] = lambda: os.getloadavg()[0]) -> float:
    """The load average of the last minute. Above 0.5 a long run raises Unavailable, a quick one
    warns.
    """
    found = load()
    if found > MAX_LOAD:
        message = (
            f"the load is {found:.2f}; figures are only worth something at {MAX_LOAD} or below"
        )
        if not quick:
            raise Unavailable(f"{message}: wait until the machine is idle")
        log.warning("%s", message)
    return found
