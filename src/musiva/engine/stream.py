"""A request as an iterator of its events."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from musiva.core.types import Event, Request

if TYPE_CHECKING:
    from musiva.engine.front import Front

__all__ = ["Stream"]


class Stream:
    """The events of one request, which is submitted at once; `close` it to leave early, which
    cancels it.
    """

    def __init__(self, engine: Front, request: Request, latents: Sequence[Tensor] | None) -> None:
        self._engine, self._request = engine, request
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ended = False
        engine.submit(request, self._listen, latents=latents)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self._ended:
            raise StopIteration
        try:
            event = self._events.get()
        except BaseException:
            self.close()
            raise
        if event.kind in ("done", "failed"):
            self._ended = True
        if event.error is not None:
            raise event.error
        return event

    def _listen(self, event: Event) -> None:
        # That it is admitted is news for those who answer for it, not for those who wait.
        if event.kind != "admitted":
            self._events.put(event)

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._engine.cancel(self._request.id)

    def __del__(self) -> None:
        self.close()
