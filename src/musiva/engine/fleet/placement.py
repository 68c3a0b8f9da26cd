"""Which worker gets a request: asked once a request, never once a step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["LOOK", "Load", "loads_of", "misplaced", "placed"]

# Seconds between two looks at whether all are well placed.
LOOK = 0.1

NOTHING: Mapping[int, float] = MappingProxyType({})


class Load(NamedTuple):
    """Of a worker. seconds: of work that are left on it. requests: that it has; waiting: those of
    them that have not begun.
    """

    seconds: float = 0.0
    requests: int = 0
    waiting: int = 0


def loads_of(ready: Iterable[int], requests: Iterable[tuple[int, float, bool]]) -> dict[int, Load]:
    """Of all workers that take requests, in their order. requests: of each that is on a worker, its
    number, the seconds of work that are left, and whether it has begun.
    """
    seconds = dict.fromkeys(ready, 0.0)
    counts, waiting = dict.fromkeys(seconds, 0), dict.fromkeys(seconds, 0)
    for number, left, begun in requests:
        if number in seconds:
            seconds[number] += left
            counts[number] += 1
            waiting[number] += not begun
    return {n: Load(seconds[n], counts[n], waiting[n]) for n in seconds}


def placed(
    loads: Mapping[int, Load], tried: Collection[int], saved: Mapping[int, float] = NOTHING
) -> int | None:
    """The worker that would be done first, out of those that have not refused; None if all have, or
    there is none. saved: seconds that workers would save of it with what is near them.
    """
    others = [number for number in loads if number not in tried]
    return min(
        others,
        key=lambda number: (loads[number].seconds - saved.get(number, 0.0), number),
        default=None,
    )


def misplaced(loads: Mapping[int, Load]) -> tuple[int, int] | None:
    """(from, to): a worker with requests that wait for others, and one that has nothing to do; None
    where all are well placed.
    """
    idle = [number for number, load in loads.items() if not load.requests]
    crowded = [n for n, load in loads.items() if load.waiting and load.requests > 1]
    if not idle or not crowded:
        return None
    return max(crowded, key=lambda number: (loads[number].seconds, -number)), min(idle)
