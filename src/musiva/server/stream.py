"""Server-sent events (HTML Standard, section 9.2) as an answer, to readers of any speed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from fastapi.responses import Response
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from musiva.core.errors import Cancelled
from musiva.server.answers import ErrorEvent
from musiva.server.errors import logged

__all__ = ["EventStream"]

log = logging.getLogger(__name__)
# Models with a `type`.
Events = Callable[[Receive], AsyncGenerator[BaseModel | None, None]]
# A comment, which readers pass over: proxies close connections on which nothing moves for long.
KEEPALIVE = b": still at it\n\n"


class EventStream(Response):
    """The events of one request, as they come.

    events: given the ASGI `receive`, the news; None keeps the connection in use. What it raises
    before its first item, which is None, becomes an ordinary answer, and what it raises afterwards
    the event "error". left: called where its reader goes away before the end, which `events` tells
    by Cancelled. A reader that takes nothing for `stall_seconds` is given up. However the stream
    ends, `events` is closed.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: Events,
        request_id: str,
        *,
        left: Callable[[], None],
        stall_seconds: float,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._request_id = request_id
        self._left = left
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events(receive)) as events:
            await anext(events)
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            try:
                await self._send(send, start)
                await self._tell(events, send)
                await self._send(send, _body(b"", last=True))
            except Cancelled:
                self._left()

    async def _tell(self, events: AsyncGenerator[BaseModel | None, None], send: Send) -> None:
        try:
            async for news in events:
                await self._send(send, _body(KEEPALIVE if news is None else _frame(news)))
        except Cancelled:
            raise
        except Exception as error:
            # The boundary of a request: its status is out, so its error becomes an event.
            told = logged(self._request_id, error)
            await self._send(send, _body(_frame(ErrorEvent(error=told.detail))))

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await send(message)
        except TimeoutError:
            log.warning("request %s: given up, its stream is not read", self._request_id)
            raise Cancelled("its client does not read") from None


def _body(content: bytes, *, last: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": not last}


def _frame(event: BaseModel) -> bytes:
    kind: str = event.type  # type: ignore[attr-defined]
    return f"event: {kind}\ndata: {event.model_dump_json()}\n\n".encode()
