"""Curves of cost over decibels: what a method takes of a dense run's time to come so near to it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["Point", "hull", "lead", "share_at"]


@dataclass(frozen=True, slots=True)
class Point:
    """A method at one setting. One number per picture each: decibels to the reference, the same
    over the foreground only, share of the seconds that its own dense run takes, evaluations that
    were computed.
    """

    method: str
    setting: str
    psnr: tuple[float, ...]
    foreground: tuple[float, ...]
    share: tuple[float, ...]
    computed: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.psnr)

    @property
    def low(self) -> float:
        """The 5th percentile."""
        return float(np.quantile(self.psnr, 0.05))

    @property
    def foreground_mean(self) -> float:
        return statistics.fmean(self.foreground)

    @property
    def share_mean(self) -> float:
        return statistics.fmean(self.share)

    def part(self, pictures: Sequence[int]) -> Point:
        """Of some pictures only."""
        columns = (self.psnr, self.foreground, self.share, self.computed)
        return Point(self.method, self.setting, *(tuple(c[i] for i in pictures) for c in columns))

    def row(self) -> Mapping[str, object]:
        return {
            "method": self.method,
            "setting": self.setting,
            "psnr_mean": round(self.mean, 2),
            "psnr_p5": round(self.low, 2),
            "foreground_mean": round(self.foreground_mean, 2),
            "share": round(self.share_mean, 5),
            "computed": round(statistics.fmean(self.computed), 3),
        }


def hull(points: Sequence[Point]) -> list[tuple[float, float]]:
    """The lower convex hull of (mean decibels, logarithm of mean share): a method at its best, if
    settings may be mixed over requests.
    """
    best: list[tuple[float, float]] = []
    for at in sorted((p.mean, math.log(p.share_mean)) for p in points):
        # One that is not better in quality, but dearer, is on no hull.
        while best and best[-1][1] >= at[1]:
            best.pop()
        while len(best) > 1 and _turns_right(best[-2], best[-1], at):
            best.pop()
        best.append(at)
    return best


def share_at(points: Sequence[Point], decibels: float) -> float | None:
    """Of the hull, at a mean; None where it does not reach. Below its cheapest point, that one's
    share.
    """
    corners = hull(points)
    if not corners or decibels > corners[-1][0]:
        return None
    if decibels <= corners[0][0]:
        return math.exp(corners[0][1])
    for (x0, y0), (x1, y1) in pairwise(corners):
        if decibels <= x1:
            return math.exp(y0 + (decibels - x0) / (x1 - x0) * (y1 - y0))
    raise AssertionError("a hull is sorted")


def lead(ours: Sequence[Point], rival: Sequence[Point], decibels: Sequence[float]) -> float | None:
    """The rival's share over ours, at the decibels where it is lowest; None where ours does not
    reach one of them. Where only the rival does not, that one does not count.
    """
    found = []
    for at in decibels:
        mine, other = share_at(ours, at), share_at(rival, at)
        if mine is None:
            return None
        if other is not None:
            found.append(other / mine)
    return min(found, default=None)


def _turns_right(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) <= (b[1] - a[1]) * (c[0] - a[0])
