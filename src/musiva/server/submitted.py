"""One engine request as its HTTP side sees it, over the border of the engine's thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from starlette.types import Receive

from musiva.core.errors import Cancelled, Unavailable
from musiva.core.types import Event, Request
from musiva.engine import Front

__all__ = ["Submitted", "disconnected"]

ENDS = ("done", "failed")
STOPS = "the server is shutting down"


class Submitted:
    """Submits a request when entered; whatever leaves it early, also a cancelled task, cancels the
    request: the engine drops it when its current step ends.

    kinds: of events to be told, beside the end. receive: of a request whose body has been read; it
    tells when the client leaves; None where no client is waited for. stopping: set when the server
    stops. A reader may be slow: of each picture only the latest "progress" and the latest "preview"
    wait for it, and they are dropped when the picture is there.
    """

    def __init__(
        self,
        engine: Front,
        request: Request,
        receive: Receive | None,
        *,
        kinds: Collection[str],
        stopping: asyncio.Event,
    ) -> None:
        self._engine, self._request, self._receive = engine, request, receive
        self._kinds = {*kinds, *ENDS}
        self._stopping = stopping
        self._news: dict[tuple[str, int], Event] = {}
        self._wake = asyncio.Event()
        self._ended = False
        self._leaving: asyncio.Future[None] | None = None

    def __enter__(self) -> Submitted:
        """Raises Overloaded, or Unavailable when the engine or the server stops."""
        if self._stopping.is_set():
            raise Unavailable(STOPS)
        self._loop = asyncio.get_running_loop()
        self._engine.submit(self._request, self._listen)
        self._closing = asyncio.ensure_future(self._stopping.wait())
        self._closing.add_done_callback(lambda _: self._wake.set())
        if self._receive is not None:
            self._leaving = asyncio.ensure_future(disconnected(self._receive))
            self._leaving.add_done_callback(lambda _: self._wake.set())
        return self

    def __exit__(self, *exc: object) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._closing.cancel()
        self._news.clear()
        if not self._ended:
            self._engine.cancel(self._request.id)

    @property
    def num_before(self) -> int | None:
        """Requests before it in the queue; None once it runs."""
        return self._engine.num_before(self._request.id)

    async def admitted(self) -> float:
        """Wait until it is, which of its news is the first, if "admitted" is among `kinds`; the
        seconds in which its pictures should be there. Raises what `next` raises, and Overloaded.
        """
        while (event := await self.next()) is None or event.kind != "admitted":
            pass
        return event.finish

    async def __aiter__(self) -> AsyncIterator[Event]:
        """All news up to the end. Raises what `next` raises."""
        while (event := await self.next()) is None or event.kind != "done":
            if event is not None:
                yield event

    async def next(self, timeout: float | None = None) -> Event | None:
        """The next news, None after `timeout` seconds without any.

        Raises what the request failed of, Cancelled when the client has left, Unavailable when the
        server stops; pictures that are there come before the latter.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        if self._leaving is not None and self._leaving.done():
            self._leaving.result()
            raise Cancelled(f"request {self._request.id}: its client went away")
        if not self._news:
            if self._closing.done():
                self._closing.result()
                raise Unavailable(STOPS)
            return None
        event = self._news.pop(next(iter(self._news)))
        if not self._news and not self._closing.done():
            self._wake.clear()
        if isinstance(event.error, Cancelled):
            # Its client is still there, so it was the engine that closed.
            raise Unavailable(f"request {self._request.id}: {event.error}")
        if event.error is not None:
            raise event.error
        return event

    def _listen(self, event: Event) -> None:
        if event.kind in self._kinds:
            # A shutdown may close the loop before the engine tells of what it cancelled.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._enter, event)

    def _enter(self, event: Event) -> None:
        self._ended = self._ended or event.kind in ENDS
        stale = [event.kind] if event.kind != "picture" else ["progress", "preview"]
        for kind in stale:
            self._news.pop((kind, event.index), None)
        self._news[event.kind, event.index] = event
        self._wake.set()


async def disconnected(receive: Receive) -> None:
    """Waits until the client has left whose request has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
