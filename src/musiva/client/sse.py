"""Server-sent events (HTML Standard, section 9.2) out of bytes in pieces of any size."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["EventParser", "ServerSentEvent"]

LINE_END = re.compile(rb"\r\n|\r|\n")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """event: its type, "message" unless the stream names one. data: its lines, joined by \\n."""

    event: str
    data: str


class EventParser:
    """Takes bytes, gives the events that they complete; what is never completed is never given.

    Lines may end in LF, CR or CRLF. Pieces may end anywhere, also inside a character or a CRLF.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._event = ""
        self._data: list[str] = []
        self._first_line = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        if not chunk:
            return []
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        # An LF that completes a CRLF across two pieces ends no second line.
        self._after_cr = chunk.endswith(b"\r")
        *ends, rest = LINE_END.split(chunk)
        events: list[ServerSentEvent] = []
        for end in ends:
            self._line += end
            events += self._end_line(bytes(self._line))
            self._line.clear()
        self._line += rest
        return events

    def _end_line(self, line: bytes) -> list[ServerSentEvent]:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, value = line.decode("utf-8", errors="replace").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        # Comments have an empty name; `id` and `retry` are for reconnecting, which makes no sense
        # for a picture; other fields are to be ignored.
        return []

    def _dispatch(self) -> list[ServerSentEvent]:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return [ServerSentEvent(event, "\n".join(data))] if data else []
