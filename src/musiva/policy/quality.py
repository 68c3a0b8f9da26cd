"""What a quality promises, a PSNR against the model's own dense run at the same seed, and the
policy that keeps it.
"""

from __future__ import annotations

import numpy as np

from musiva.core.types import Level
from musiva.policy.calibration import Calibration

__all__ = ["floor_db", "levels_between", "promising", "quality_of"]

# Linear between these; 100 is the dense run itself.
QUALITIES = (1, 50, 60, 70, 80, 90, 99)
FLOORS_DB = (16.0, 26.0, 28.0, 30.0, 32.0, 36.0, 45.0)
# Three pictures of a hundred are hard; without it they miss any promise.
CAUTION = 1.0


def floor_db(quality: int) -> float:
    """The PSNR in dB, on the decoded picture, that a quality from 1 to 99 promises."""
    return float(np.interp(quality, QUALITIES, FLOORS_DB))


def quality_of(decibels: float) -> int:
    """The highest quality, from 1 to 99, whose floor is no higher than that PSNR."""
    return max(int(np.interp(decibels, FLOORS_DB, QUALITIES) + 1e-9), 1)


def levels_between(low: int, high: int, calibration: Calibration, steps: int) -> tuple[Level, ...]:
    """The policies that keep qualities between two, the most exact first: the last is the cheapest
    that keeps `low`, from 1 to 99, in that many steps, by what was measured. The dense run keeps
    what nothing else does.
    """
    floor = calibration.tolerance(floor_db(low), steps)
    if floor is None:
        return (Level("never", low),)
    ceiling = 0.0 if high == 100 else calibration.tolerance(floor_db(high), steps) or 0.0
    if low == high or ceiling == floor:
        return (Level(promising(floor), low),)
    between = [
        Level(promising(row.tolerance), min(max(quality_of(row.psnr_low), low), high))
        for row in calibration.rows(steps)
        if ceiling < row.tolerance < floor
    ]
    return (Level(promising(ceiling), high), *between, Level(promising(floor), low))


def promising(tolerance: float) -> str:
    """The policy that qualities are measured with, and asked for by."""
    return f"adaptive:tolerance={tolerance},caution={CAUTION:g}"
