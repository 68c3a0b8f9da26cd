"""A server of the test's own that answers each connection by a script, faults included."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from musiva.core.provenance import png_info

__all__ = [
    "RESET",
    "STREAM",
    "Scripted",
    "answer",
    "completed",
    "event",
    "png",
    "progress",
    "scripted",
]

RESET = object()
HOLD = 20.0
# Bytes to send, seconds to wait, or RESET; a connection is closed after its last step.
Step = bytes | float | object
Script = Sequence[Step]


@dataclass(slots=True)
class Scripted:
    """bodies: of the requests so far. left: set when a client closes a connection that waits."""

    url: str
    bodies: list[dict[str, object]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)


@contextmanager
def scripted(*scripts: Script) -> Iterator[Scripted]:
    """One script per connection, in order; fails the test when not each was used."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Scripted(f"http://127.0.0.1:{listener.getsockname()[1]}")
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(listener, scripts, server, stop))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        listener.close()
        thread.join(20)
    assert len(server.heads) == len(scripts)


def answer(
    body: object, status: str = "200 OK", kind: str = "application/json", **headers: str
) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(kind: str, **data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


def progress(evaluation: int, total: int = 4, index: int = 0, **more: object) -> bytes:
    numbers = {"index": index, "evaluation": evaluation, "num_evaluations": total}
    return event("image_generation.progress", **numbers, **{"waiting": None, **more})


def completed(index: int = 0, seed: int = 7, **more: object) -> bytes:
    b64_json = base64.b64encode(png(seed)).decode()
    said = {"b64_json": b64_json, "output_format": "png", "index": index, "seed": seed}
    return event("image_generation.completed", **said, timing={"seconds": 0.5}, **more)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    note = {"prompt": "a fox", "size": "8x8", "seed": seed, "steps": 4}
    picture = Image.new("RGB", (8, 8), (seed % 256, 0, 0))
    picture.save(buffer, "PNG", pnginfo=png_info(note))
    return buffer.getvalue()


def _serve(
    listener: socket.socket, scripts: Sequence[Script], server: Scripted, stop: threading.Event
) -> None:
    for script in scripts:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(HOLD)
            head, _, body = _request(connection).partition(b"\r\n\r\n")
            server.heads.append(head.decode())
            server.bodies.append(json.loads(body) if body else {})
            _play(connection, script, server, stop)


def _play(
    connection: socket.socket, script: Script, server: Scripted, stop: threading.Event
) -> None:
    for step in script:
        if step is RESET:
            # Closing with a linger of 0 sends RST.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif isinstance(step, bytes):
            connection.sendall(step)
        else:
            assert isinstance(step, float)
            connection.settimeout(0.01)
            for _ in range(int(step / 0.01)):
                try:
                    if connection.recv(1) == b"":
                        server.left.set()
                        return
                except TimeoutError:
                    if stop.is_set():
                        return
                except ConnectionError:
                    server.left.set()
                    return


def _request(connection: socket.socket) -> bytes:
    content = b""
    while b"\r\n\r\n" not in content:
        content += connection.recv(65536)
    head = content.partition(b"\r\n\r\n")[0].lower()
    if b"content-length: " in head:
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(content) < len(head) + 4 + length:
            content += connection.recv(65536)
    return content
