"""How many image requests there may be at a time, and when to come back."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from musiva.core.errors import Overloaded
from musiva.server.errors import ApiError

__all__ = ["Places"]

REMEMBERED = 32
WINDOW_SECONDS = 60.0
# Told while nothing has ended yet that could be measured.
UNKNOWN_SECONDS = 5


class Places:
    """Hands out at most `most` places. For one event loop; clock: seconds, of any origin."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.num_taken = 0
        self._clock = clock
        self._freed: deque[float] = deque(maxlen=REMEMBERED)

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place. Raises ApiError (429) when there is none, also when the engine says so."""
        if self.num_taken >= self.most:
            raise self._refusal(f"{self.num_taken} requests wait or run; at most {self.most} may")
        self.num_taken += 1
        used = True
        try:
            yield
        except Overloaded as error:
            used = False
            raise self._refusal(str(error)) from error
        finally:
            self.num_taken -= 1
            if used:
                self._freed.append(self._clock())

    def _refusal(self, reason: str) -> ApiError:
        seconds = self.seconds_to_a_place()
        message = f"{reason}; try again in {seconds} s"
        headers = {"Retry-After": str(seconds)}
        return ApiError(429, message, code="rate_limit_exceeded", headers=headers)

    def seconds_to_a_place(self) -> int:
        """1 to 60: the mean time between the latest ends of requests, up to a minute back."""
        now = self._clock()
        recent = [at for at in self._freed if at > now - WINDOW_SECONDS]
        if not recent:
            return UNKNOWN_SECONDS if not self._freed else int(WINDOW_SECONDS)
        return min(max(math.ceil((now - recent[0]) / len(recent)), 1), int(WINDOW_SECONDS))
