"""How many image requests there may be at a time, and when to come back."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from musiva.core.errors import InvalidInput, Overloaded
from musiva.server.errors import ApiError

__all__ = ["Places"]

REMEMBERED = 32
WINDOW_SECONDS = 60.0
# Told while nothing has ended yet that could be measured.
UNKNOWN_SECONDS = 5


class Places:
    """Hands out at most `most` places. For one event loop. clock: seconds, of any origin. refused:
    is told why somebody was refused: "full", "deadline", or "share", that of its tenant.
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.most = most
        self.num_taken = 0
        self._clock = clock
        self._tell = refused
        self._freed: deque[float] = deque(maxlen=REMEMBERED)

    def check(self) -> None:
        """Raises ApiError (429) when there is no place."""
        if self.num_taken >= self.most:
            raise self._full(f"{self.num_taken} requests wait or run; at most {self.most} may")

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place. Raises ApiError (429) when there is none, and when the engine says so: it
        is full, or a deadline cannot be kept.
        """
        self.check()
        self.num_taken += 1
        used = True
        try:
            yield
        except Overloaded as error:
            used = False
            raise self._refusal(error) from error
        except InvalidInput:
            used = False
            raise
        finally:
            self.num_taken -= 1
            if used:
                self._freed.append(self._clock())

    def seconds_to_a_place(self) -> int:
        """1 to 60: the mean time between the latest ends of requests, up to a minute back."""
        now = self._clock()
        recent = [at for at in self._freed if at > now - WINDOW_SECONDS]
        if not recent:
            return UNKNOWN_SECONDS if not self._freed else int(WINDOW_SECONDS)
        return min(max(math.ceil((now - recent[0]) / len(recent)), 1), int(WINDOW_SECONDS))

    def _refusal(self, error: Overloaded) -> ApiError:
        finish, retry = error.finish, error.retry
        if finish is None or retry is None:
            return self._full(str(error))
        self._tell(error.reason)
        code = "deadline_unreachable" if error.reason == "deadline" else "rate_limit_exceeded"
        seconds = max(math.ceil(retry), 1)
        return ApiError(
            429,
            f"{error}; try again in {seconds} s",
            code=code,
            headers={"Retry-After": str(seconds)},
            seconds=(round(finish, 4), round(max(retry, 0.0), 4)),
        )

    def _full(self, reason: str) -> ApiError:
        self._tell("full")
        seconds = self.seconds_to_a_place()
        message = f"{reason}; try again in {seconds} s"
        headers = {"Retry-After": str(seconds)}
        return ApiError(429, message, code="rate_limit_exceeded", headers=headers)
