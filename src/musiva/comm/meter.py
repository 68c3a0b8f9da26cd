"""What has gone over a link, counted at one of its ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

__all__ = ["LinkFigures", "Meter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFigures:
    """kind: "server", to the one that places requests; "ranks", between those of a worker; "host",
    to another one that has pages. other: what is at the other end. transfers: messages, exchanges,
    or pages. seconds: that were waited for them; of messages, which nobody waits for, none.
    latency: seconds that something small takes, and bytes_per_second of what is large, by what was
    seen; None where nobody counts with them.
    """

    kind: str
    other: str
    sent_bytes: int
    received_bytes: int
    transfers: int
    seconds: float
    latency: float | None = None
    bytes_per_second: float | None = None


class Meter:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sent_bytes = self.received_bytes = self.transfers = 0
        self.seconds = 0.0

    def saw(self, *, sent: int = 0, received: int = 0, seconds: float = 0.0) -> None:
        """One transfer, either way or both."""
        with self._lock:
            self.sent_bytes += sent
            self.received_bytes += received
            self.transfers += 1
            self.seconds += seconds

    def figures(self, kind: str, other: str) -> LinkFigures:
        with self._lock:
            return LinkFigures(
                kind=kind,
                other=other,
                sent_bytes=self.sent_bytes,
                received_bytes=self.received_bytes,
                transfers=self.transfers,
                seconds=self.seconds,
            )

    def mirrored(self, kind: str, other: str) -> LinkFigures:
        """As the other end sees it."""
        own = self.figures(kind, other)
        return replace(own, sent_bytes=own.received_bytes, received_bytes=own.sent_bytes)
