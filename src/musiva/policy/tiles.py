"""Which tiles are computed next: a share of them by score, and rules that no score may break.

Choices, scores and ages are tuples with one entry for each tile, in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Choice", "aged", "favoured", "newest", "top_share", "with_neighbours", "with_old"]

Choice = tuple[bool, ...]


def top_share(scores: Sequence[float], share: float) -> Choice:
    """The highest of them: `share` of all, rounded up, and at least one. Of equals, the first."""
    count = max(math.ceil(share * len(scores)), 1)
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    top = set(ranked[:count])
    return tuple(i in top for i in range(len(scores)))


def favoured(scores: Sequence[float], before: Choice, gain: float) -> tuple[float, ...]:
    """Scores, none below 0, of which those of tiles that were chosen before count 1 + `gain` times:
    tiles of nearly equal scores do not take turns.
    """
    return tuple(
        score * (1.0 + gain) if chosen else score
        for score, chosen in zip(scores, before, strict=True)
    )


def with_neighbours(chosen: Choice, shape: tuple[int, int], rings: int = 1) -> Choice:
    """With all tiles at most `rings` rows and columns away from a chosen one. shape: (rows,
    columns).
    """
    rows, columns = shape
    at = [divmod(i, columns) for i, there in enumerate(chosen) if there]
    near = {
        (row, column)
        for y, x in at
        for row in range(max(y - rings, 0), min(y + rings + 1, rows))
        for column in range(max(x - rings, 0), min(x + rings + 1, columns))
    }
    return tuple((row, column) in near for row in range(rows) for column in range(columns))


def with_old(chosen: Choice, ages: Sequence[int], max_age: int) -> Choice:
    """With all tiles that would be older than `max_age` otherwise. ages: evaluations that have gone
    by since each was computed, none where that was the last one.
    """
    return tuple(there or age >= max_age for there, age in zip(chosen, ages, strict=True))


def aged(ages: Sequence[int], computed: Choice | None) -> tuple[int, ...]:
    """The ages after an evaluation that computed these tiles; None: all of them."""
    if computed is None:
        return (0,) * len(ages)
    return tuple(0 if there else age + 1 for age, there in zip(ages, computed, strict=True))


def newest(before: Sequence[float | None], now: Sequence[float | None]) -> tuple[float | None, ...]:
    """Of each tile what was measured last."""
    return tuple(old if new is None else new for old, new in zip(before, now, strict=True))
