"""The server as a process: addresses it cannot have, and signals."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from musiva.core.errors import InvalidInput, Unavailable, UnknownModel
from musiva.server import bind, serve
from tests.fixtures import hears_interrupts
from tests.server.live import wait_until

PROGRAM = "import sys; from musiva.server import serve; serve(sys.argv[1], port=0)"
LONG_WORK = {"prompt": "a blue whale", "size": "128x128", "steps": 1000, "n": 8}


def test_port_in_use_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: the port is in use") as caught:
            serve(tmp_path / "no model", port=port)
    assert caught.value.exit_code == 3


def test_unknown_model_leaves_the_port_free(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnknownModel):
        serve(tmp_path / "no model", port=port)
    bind("127.0.0.1", port).close()


@pytest.mark.parametrize("port", [-1, 65536, "8400", True])
def test_ports_that_do_not_exist(port: object) -> None:
    with pytest.raises(InvalidInput, match="0 to 65535"):
        bind("127.0.0.1", port)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "x" * 300])
def test_hosts_that_are_not_here(host: str) -> None:
    with pytest.raises(InvalidInput, match=r"host: got .*this machine"):
        bind(host, 0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what other tests have captured, and no profile."""
    cache = tmp_path_factory.mktemp("cache")
    captures = Path(os.environ["MUSIVA_CACHE_DIR"]) / "captures"
    # Another process may be writing there.
    with suppress(OSError):
        shutil.copytree(captures, cache / "captures")
    return cache


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.matrix), signal.SIGTERM]
)
def test_signal_ends_it_cleanly_with_requests_running(
    tiny_model: Path, cache: Path, number: signal.Signals
) -> None:
    """And what it measured when it started for the first time is kept."""
    kept = any((cache / "profiles").glob("*.json"))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "MUSIVA_CACHE_DIR": str(cache),
        "MUSIVA_KERNELS": "plain",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tiny_model)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hears_interrupts,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving tiny at http://127.0.0.1:"), process.stderr
        url = line.split()[3]
        with ThreadPoolExecutor(3) as pool, httpx.Client(base_url=url, timeout=30) as client:
            answers = [
                pool.submit(client.post, "/v1/images/generations", json=LONG_WORK) for _ in range(3)
            ]

            def live() -> int:
                health = client.get("/healthz").json()
                return health["waiting"] + health["running"]

            wait_until(lambda: live() == 3)
            start = time.monotonic()
            process.send_signal(number)
            for answer in answers:
                response = answer.result(10)
                assert response.status_code == 503
                assert response.json()["error"]["code"] == "unavailable"
            _, errors = process.communicate(timeout=10)
        assert time.monotonic() - start < 5
        measured = "Measuring what steps of tiny take here, for a few seconds\n"
        assert (process.returncode, errors) == (0, "" if kept else measured)
    finally:
        process.kill()
        process.communicate()
