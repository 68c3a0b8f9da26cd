"""What a quality promises, a PSNR against the model's own dense run at the same seed, and the
policy that keeps it.
"""

from __future__ import annotations

import numpy as np

from musiva.policy.calibration import Calibration

__all__ = ["floor_db", "policy_keeping", "promising"]

# Linear between these; 100 is the dense run itself.
QUALITIES = (1, 50, 60, 70, 80, 90, 99)
FLOORS_DB = (16.0, 26.0, 28.0, 30.0, 32.0, 36.0, 45.0)
# Three pictures of a hundred are hard; without it they miss any promise.
CAUTION = 1.0


def floor_db(quality: int) -> float:
    """The PSNR in dB, on the decoded picture, that a quality from 1 to 99 promises."""
    return float(np.interp(quality, QUALITIES, FLOORS_DB))


def policy_keeping(quality: int, calibration: Calibration, steps: int) -> str:
    """The cheapest that keeps a quality from 1 to 99, in that many steps, by what was measured."""
    tolerance = calibration.tolerance(floor_db(quality), steps)
    return "never" if tolerance is None else promising(tolerance)


def promising(tolerance: float) -> str:
    """The policy that qualities are measured with, and asked for by."""
    return f"adaptive:tolerance={tolerance},caution={CAUTION:g}"
