"""Clocks that loops are given."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "RealClock", "VirtualClock"]


class Clock(Protocol):
    def now(self) -> float: ...

    def wait_until(self, at: float) -> None: ...


class RealClock:
    """Seconds of `time.monotonic`."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, at: float) -> None:
        time.sleep(max(at - time.monotonic(), 0.0))


class VirtualClock:
    """Moves only when it is told to."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait_until(self, at: float) -> None:
        self._now = max(self._now, at)

    def advance(self, seconds: float) -> None:
        self._now += seconds
