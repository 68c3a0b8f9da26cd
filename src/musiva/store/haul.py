"""What it takes to have bytes from somewhere, as far as that was seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Haul"]

# Of what is seen, the share that counts against what was known.
SHARE = 0.2
# Below so many bytes the time of a page tells of its first byte, else of the others.
SMALL = 1 << 16
# Seconds in which what was seen comes to count half. What looks slow is not asked for anything, so
# that nothing else would ever tell that it is fast again.
HALF_LIFE = 30.0


@dataclass(slots=True)
class Haul:
    """first: seconds until the first byte. each: seconds of a byte. Both are expected before
    anything was seen, and again when nothing was for long.
    """

    first: float
    each: float
    clock: Callable[[], float] = time.monotonic
    _first: float = field(init=False)
    _each: float = field(init=False)
    _seen: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        self._first, self._each = self.first, self.each

    @property
    def known(self) -> bool:
        """Whether anything was seen."""
        return self._seen > -math.inf

    @property
    def rates(self) -> tuple[float, float]:
        """Seconds until the first byte, and of each, as they are expected now."""
        left = 0.5 ** ((self.clock() - self._seen) / HALF_LIFE)
        return (
            self.first + left * (self._first - self.first),
            self.each + left * (self._each - self.each),
        )

    def predicted(self, num_bytes: int) -> float:
        first, each = self.rates
        return first + each * num_bytes

    def saw(self, num_bytes: int, seconds: float) -> None:
        """That so much took so long."""
        first, each = self.rates
        if num_bytes < SMALL:
            first += SHARE * (seconds - first)
        else:
            each += SHARE * (max(seconds - first, 0.0) / num_bytes - each)
        self._first, self._each, self._seen = first, each, self.clock()

    def failed(self, num_bytes: int, seconds: float) -> None:
        """That so much was not there after so long, which never makes it look faster."""
        self.saw(num_bytes, max(seconds, self.predicted(num_bytes)))
