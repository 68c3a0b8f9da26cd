"""One call to a server as a generator without input and output (https://sans-io.readthedocs.io).

It yields what is to be done, `Send`, `Read`, `Sleep` or `Give`, and is sent the result; what a
connection raises is thrown into it. The clients do these four things, blocking or awaiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx

from musiva.client.answers import Reader
from musiva.client.failures import failure_of, is_final
from musiva.client.retry import Retry, Timeout, retry_after, worth_another
from musiva.core.errors import MusivaError, Unavailable

__all__ = ["Call", "Flow", "Give", "Opened", "Read", "Send", "Sleep", "flow"]

T = TypeVar("T")
MAX_ERROR_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call's request; the result is `Opened`, its body not read. An answer that is still
    open is given up.
    """


@dataclass(frozen=True, slots=True)
class Read:
    """The result is the next bytes of the answer, or None at its end."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Give up the answer and wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Give(Generic[T]):
    """A piece of the result, for the caller."""

    value: T


@dataclass(frozen=True, slots=True)
class Opened:
    status: int
    headers: Mapping[str, str]


Flow = Generator[Send | Read | Sleep | Give[T], Opened | bytes | None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """What to ask, how to read the answer, and how often to try.

    sent: the body as an object, for errors that name a value of it. reader: makes a fresh one.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None = None
    sent: Mapping[str, object] = field(default_factory=dict)
    reader: Callable[[], Reader[T]]
    retry: Retry
    timeout: Timeout

    def request(self) -> httpx.Request:
        seconds = {"connect": self.timeout.connect, "read": self.timeout.read}
        seconds |= {"write": self.timeout.read, "pool": None}
        return httpx.Request(
            self.method,
            self.url,
            headers=self.headers,
            content=self.content,
            extensions={"timeout": seconds},
        )


def flow(call: Call[T]) -> Flow[T]:
    """Attempts until one succeeds or it makes no sense to go on.

    A call is repeated only while nothing of its result has been given. Raises the server's errors,
    and Unavailable for a connection that cannot be had, breaks or takes too long.
    """
    attempt = 0
    while True:
        reader = call.reader()
        given = False
        try:
            opened = yield Send()
            assert isinstance(opened, Opened)
            if not 200 <= opened.status < 300:
                content = yield from _error_body()
                asked = retry_after(opened.headers.get("retry-after"))
                error = failure_of(
                    opened.status, content, url=call.url, sent=call.sent, retry=asked
                )
                wait = None
                if worth_another(opened.status) and not is_final(error):
                    wait = call.retry.wait(attempt, asked)
                if wait is None:
                    raise error
            else:
                while (chunk := (yield Read())) is not None:
                    assert isinstance(chunk, bytes)
                    for value in reader.feed(chunk):
                        given = True
                        yield Give(value)
                for value in reader.end():
                    yield Give(value)
                return
        except httpx.RequestError as broken:
            if reader.complete:
                return
            again = worth_another(broken) and not given
            wait = call.retry.wait(attempt, None) if again else None
            if wait is None:
                raise _told(call, reader, broken, attempt) from broken
        yield Sleep(wait)
        attempt += 1


def _error_body() -> Generator[Read, Opened | bytes | None, bytes]:
    """As much of an error's body as anybody reads; what breaks there does not hide the error."""
    content = b""
    try:
        while len(content) < MAX_ERROR_BYTES and (chunk := (yield Read())) is not None:
            assert isinstance(chunk, bytes)
            content += chunk
    except httpx.RequestError:
        return content
    return content


def _told(call: Call[T], reader: Reader[T], error: httpx.RequestError, attempt: int) -> MusivaError:
    tries = f" ({attempt + 1} attempts)" if attempt else ""
    reason = str(error) or type(error).__name__
    match error:
        case httpx.ConnectTimeout():
            return Unavailable(
                f"{call.url}: no connection within {call.timeout.connect:g} s{tries}"
            )
        case httpx.TimeoutException():
            silence = f"nothing came for {call.timeout.read:g} s"
            return Unavailable(f"{call.url}: {silence}, {reader.reached}{tries}")
        case httpx.ConnectError():
            return Unavailable(f"{call.url}: no connection: {reason}{tries}")
    return Unavailable(f"{call.url}: the connection broke {reader.reached}: {reason}{tries}")
