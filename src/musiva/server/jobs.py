"""One engine request as an awaitable, over the border of the engine's thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine

import numpy as np
from starlette.types import Receive

from musiva.core.errors import Cancelled, Unavailable
from musiva.core.types import Request
from musiva.engine import Engine, Event

__all__ = ["disconnected", "run_request"]


async def run_request(
    engine: Engine,
    request: Request,
    on_picture: Callable[[int, np.ndarray], None],
    *,
    gone: Coroutine[object, object, object],
    stopping: asyncio.Event,
) -> None:
    """Run a request to its end, calling on_picture(index, pixels_HWC) in the loop for each picture.

    Raises what the request failed of or what the engine refused it for, Cancelled when `gone`
    returns first, Unavailable when `stopping` is set first. Whatever ends the wait early, also a
    cancelled task, cancels the request: the engine drops it when its current step ends.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def enter(event: Event) -> None:
        if ended.done():
            return
        if isinstance(event.error, Cancelled):
            # Its client is still there, so it was the engine that closed.
            ended.set_exception(Unavailable(f"request {request.id}: {event.error}"))
        elif event.error is not None:
            ended.set_exception(event.error)
        elif event.kind == "picture":
            assert isinstance(event.picture, np.ndarray)
            on_picture(event.index, event.picture)
        else:
            ended.set_result(None)

    def listen(event: Event) -> None:
        if event.kind != "progress":
            # A shutdown may close the loop before the engine tells of what it cancelled.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(enter, event)

    if stopping.is_set():
        gone.close()
        raise Unavailable("the server is shutting down")
    leaving = asyncio.ensure_future(gone)
    closing = asyncio.ensure_future(stopping.wait())
    try:
        engine.submit(request, listen)
        await asyncio.wait((ended, leaving, closing), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
        elif leaving.done():
            leaving.result()
            raise Cancelled(f"request {request.id}: its client went away")
        else:
            closing.result()
            raise Unavailable("the server is shutting down")
    finally:
        leaving.cancel()
        closing.cancel()
        if ended.cancel():
            engine.cancel(request.id)


async def disconnected(receive: Receive) -> None:
    """Return when the client of a request, whose body has been read, closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
