"""Whole samples, each to one rank."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["spread"]


def spread(work: Sequence[int], size: int) -> list[int]:
    """The rank of each of several pieces of work: the longest first, to whoever has least (Graham,
    1969: at most 4/3 of the shortest time that there is).
    """
    loads, found = [0] * size, [0] * len(work)
    for i in sorted(range(len(work)), key=lambda i: -work[i]):
        found[i] = loads.index(min(loads))
        loads[found[i]] += work[i]
    return found
