"""When a request is sent again, and after how long."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from musiva.core.errors import InvalidInput

__all__ = ["Retry", "Timeout", "retry_after", "worth_another"]

AGAIN = (429, 503)


@dataclass(frozen=True, slots=True)
class Timeout:
    """Seconds. connect: until the server takes the connection. read: between two pieces of an
    answer; the first one of an answer that is no stream comes when its pictures are done.

    Raises InvalidInput for what is not above 0 and finite.
    """

    connect: float = 5.0
    read: float = 600.0

    def __post_init__(self) -> None:
        for name in ("connect", "read"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise InvalidInput(f"timeout.{name}", value, "seconds, more than 0")

    @classmethod
    def of(cls, value: Timeout | float | None, default: Timeout) -> Timeout:
        """A bare number is the read timeout."""
        if value is None:
            return default
        return value if isinstance(value, Timeout) else cls(default.connect, value)


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with jitter (Brooker, "Exponential Backoff And Jitter", 2015), or what
    the server's Retry-After says; one that is longer than `patience` seconds is not waited for.

    draw: uniform over [0, 1).
    """

    retries: int = 2
    base: float = 0.5
    longest: float = 8.0
    patience: float = 60.0
    draw: Callable[[], float] = random.random

    def wait(self, attempt: int, asked: float | None) -> float | None:
        """Seconds to wait after attempt 0, 1, ...; None to give up."""
        if attempt >= self.retries:
            return None
        backoff = min(self.base * 2**attempt, self.longest)
        if asked is None:
            return backoff * (0.5 + 0.5 * self.draw())
        # Many clients are told the same time; they should not come back in the same moment.
        return None if asked > self.patience else asked + self.base * self.draw()


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, section 10.2.3);
    None for none, or one that makes no sense. now: seconds since 1970.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def worth_another(failure: httpx.RequestError | int) -> bool:
    """Whether a status, or what broke a connection, may be gone a little later.

    A read timeout is not: the server would compute the same once more beside what it still does.
    """
    if isinstance(failure, int):
        return failure in AGAIN
    return isinstance(
        failure,
        httpx.ConnectError | httpx.ConnectTimeout | httpx.NetworkError | httpx.RemoteProtocolError,
    )
