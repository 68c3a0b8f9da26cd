"""A real server on a loopback port, in a thread of the test's process."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvicorn

from musiva.engine import Engine
from musiva.server import AppConfig, bind, create_app
from musiva.server.serve import Server
from musiva.telemetry import Metrics

__all__ = [
    "asked_until",
    "connect",
    "events_in",
    "live_server",
    "raw_request",
    "slots_of",
    "wait_until",
]

T = TypeVar("T")


@contextmanager
def live_server(
    engine: Engine, metrics: Metrics, config: AppConfig | None = None
) -> Iterator[tuple[str, int]]:
    """Serve an engine; gives (host, port)."""
    app = create_app(engine, metrics=metrics, config=config)
    listener = bind("127.0.0.1", 0)
    address: tuple[str, int] = listener.getsockname()
    ready = threading.Event()
    settings = uvicorn.Config(
        app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=2
    )
    server = Server(settings, started=ready.set, stop=app.state.stopping.set)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert ready.wait(20)
        yield address
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> float:
    """Seconds until `true()` held; fails the test when it does not in time."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, "waited in vain"
        time.sleep(0.005)
    return time.monotonic() - start


def asked_until(ask: Callable[[], list[T]], *ready: Callable[[T], object]) -> list[T]:
    """What `ask` gave in the end, with at least one event that each of `ready` holds of: a stream
    drops news that its reader was too slow for, so that a busy machine may have to ask again.
    """
    found: list[T] = []

    def done() -> bool:
        found[:] = ask()
        return all(any(is_one(event) for event in found) for is_one in ready)

    wait_until(done)
    return found


def events_in(content: bytes) -> list[dict[str, Any]]:
    """The events of a stream, comments passed over; fails on anything but our own framing."""
    events = []
    *blocks, rest = content.decode().split("\n\n")
    assert rest == ""
    for block in blocks:
        if block.startswith(":"):
            continue
        kind, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        events.append(event)
    return events


def slots_of(engine: Engine) -> int:
    """Samples that the engine still keeps something for."""
    return engine._loop.executor.num_slots  # type: ignore[attr-defined]


def raw_request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=10)
