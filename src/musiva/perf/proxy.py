"""A TCP proxy that makes faults: connections that take long, say nothing any more, or end."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Literal

from musiva.comm import address_of

__all__ = ["Mode", "Proxy"]

Mode = Literal["pass", "delay", "stall", "cut"]
CHUNK = 1 << 16
# Seconds between two looks at whether a stalled connection goes on.
LOOK = 0.01


class Proxy:
    """In front of an address, at one of its own. mode: what becomes of what is sent: it passes,
    after `seconds` ("delay"), not before the mode is another one ("stall"), or never, since
    connections end ("cut").
    """

    def __init__(self, target: str, *, seconds: float = 0.05) -> None:
        self.mode: Mode = "pass"
        self._target, self._seconds = address_of(target), seconds
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, name="musiva-proxy", daemon=True).start()

    def close(self) -> None:
        self.mode = "cut"
        for one in [self._listener, *self._open]:
            _end(one)

    def _listen(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            try:
                other = socket.create_connection(self._target)
            except OSError:
                _end(one)
                continue
            self._open |= {one, other}
            for source, target in ((one, other), (other, one)):
                body = threading.Thread(target=self._carry, args=(source, target), daemon=True)
                body.start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                if self.mode == "delay":
                    time.sleep(self._seconds)
                while self.mode == "stall":
                    time.sleep(LOOK)
                if self.mode == "cut":
                    break
                target.sendall(chunk)
        for one in (source, target):
            self._open.discard(one)
            _end(one)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
