"""Questions and answers between processes over TCP: bytes there, bytes back.

Who connects proves that it knows the secret, which itself never travels: it is sent a number that
nobody has seen, and answers with a keyed digest of it. What is said then is not encrypted, as
between ranks.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from musiva.comm.meter import Meter
from musiva.core.errors import InvalidInput, Unavailable

__all__ = ["Link", "Service", "address_of"]

log = logging.getLogger(__name__)
LENGTH = struct.Struct("!Q")
NONCE_BYTES = 32
# Of one question or answer; whoever says more is none of ours.
MOST_BYTES = 1 << 36
# Seconds within which who connects has to prove itself.
PROVEN = 5.0
# Seconds until the next one is taken where nobody can be.
REFUSED = 0.2


def address_of(text: str, field: str = "address") -> tuple[str, int]:
    """(host, port) of "HOST:PORT". Raises InvalidInput."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInput(field, text, "HOST:PORT, with a port from 1 to 65535")
    return host.strip("[]"), int(port)


class Service:
    """Answers questions, each connection in a thread of its own."""

    def __init__(
        self,
        answer: Callable[[bytearray], bytes],
        secret: bytes,
        host: str,
        meter: Callable[[str], Meter] = lambda _: Meter(),
    ) -> None:
        """answer: of any thread; what it raises ends the connection. host: an address of this
        machine, at which a free port is taken. meter: of what is said to whoever asks from a host.
        Raises Unavailable.
        """
        self._answer, self._secret, self._meter = answer, secret, meter
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        try:
            self._listener = socket.create_server((host, 0))
        except OSError as error:
            raise Unavailable(f"nothing can be served at {host}: {error}") from error
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, name="musiva-service", daemon=True).start()

    def close(self) -> None:
        """Everyone who is connected is told so. May be repeated."""
        with self._lock:
            self._closed = True
            left = [self._listener, *self._open]
        for one in left:
            with suppress(OSError):
                # Closing alone wakes nobody who waits in another thread.
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _listen(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                # As where no descriptor is left: who asks finds out by himself, and comes again.
                log.warning("%s takes nobody: %s", self.address, error)
                time.sleep(REFUSED)
                continue
            with self._lock:
                if self._closed:
                    one.close()
                    return
                self._open.add(one)
            serves = threading.Thread(
                target=self._serve, args=(one,), name="musiva-service-serves", daemon=True
            )
            try:
                serves.start()
            except RuntimeError as error:
                log.warning("%s takes nobody: %s", self.address, error)
                with self._lock:
                    self._open.discard(one)
                one.close()
                time.sleep(REFUSED)

    def _serve(self, one: socket.socket) -> None:
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A host that went without a word would hold this thread for ever.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            nonce = secrets.token_bytes(NONCE_BYTES)
            one.sendall(nonce)
            end = time.monotonic() + PROVEN
            proof = _received(one, NONCE_BYTES, end)
            if not hmac.compare_digest(bytes(proof), _proof(self._secret, nonce)):
                log.warning("somebody who does not know the secret was turned away")
                return
            one.settimeout(None)
            meter = self._meter(one.getpeername()[0])
            while True:
                question = _frame(one, None)
                answer = self._answer(question)
                # Whoever has the answer finds it counted.
                meter.saw(sent=len(answer), received=len(question))
                one.sendall(LENGTH.pack(len(answer)))
                one.sendall(answer)
        except (OSError, EOFError):
            pass  # the other end has gone, or was not one of ours
        except Exception:
            log.exception("a question could not be answered")
        finally:
            with self._lock:
                self._open.discard(one)
            one.close()


class Link:
    """To a service. Connects when it is first asked, and again after a failure. Thread-safe; one
    question at a time.
    """

    def __init__(self, address: str, secret: bytes, timeout: float) -> None:
        """timeout: seconds that a question and its answer may take together."""
        self.address = address
        self._where, self._secret, self._timeout = address_of(address), secret, timeout
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def ask(self, question: bytes) -> bytearray:
        """Raises Unavailable where there is no answer in time."""
        with self._lock:
            end = time.monotonic() + self._timeout
            try:
                if self._socket is None:
                    self._socket = self._connected(end)
                _await(self._socket, end)
                self._socket.sendall(LENGTH.pack(len(question)) + question)
                return _frame(self._socket, end)
            except (OSError, EOFError) as error:
                self._drop()
                raise Unavailable(f"{self.address} does not answer: {error}") from error
            except BaseException:
                # What is left of an answer must not be taken for that to another question.
                self._drop()
                raise

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _connected(self, end: float) -> socket.socket:
        one = socket.create_connection(self._where, max(end - time.monotonic(), 1e-3))
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            nonce = bytes(_received(one, NONCE_BYTES, end))
            one.sendall(_proof(self._secret, nonce))
        except BaseException:
            one.close()
            raise
        return one

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _proof(secret: bytes, nonce: bytes) -> bytes:
    return hmac.digest(secret, nonce, "sha256")


def _await(one: socket.socket, end: float | None) -> None:
    """Let the next call on it take no longer. Raises TimeoutError."""
    if end is None:
        return
    left = end - time.monotonic()
    if left <= 0.0:
        raise TimeoutError("it took too long")
    one.settimeout(left)


def _frame(one: socket.socket, end: float | None) -> bytearray:
    (length,) = LENGTH.unpack(_received(one, LENGTH.size, end))
    if length > MOST_BYTES:
        raise OSError(f"{length} bytes are announced")
    return _received(one, length, end)


def _received(one: socket.socket, count: int, end: float | None) -> bytearray:
    """So many bytes. Raises EOFError, TimeoutError, OSError."""
    found = bytearray(count)
    view, have = memoryview(found), 0
    while have < count:
        _await(one, end)
        more = one.recv_into(view[have:])
        if not more:
            raise EOFError("the other end has gone")
        have += more
    return found
