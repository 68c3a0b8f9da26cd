"""`musiva serve --workers` and `musiva cluster`, from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musiva.client import Client
from musiva.core.errors import InvalidInput, Unavailable
from musiva.perf.child import child_environment
from tests.cli.conftest import Musiva
from tests.server.live import wait_until

ASKED = {"size": (32, 32), "steps": 4, "seed": 1}


def test_a_server_of_processes_from_the_command_line(tiny_model: Path, musiva: Musiva) -> None:
    """It starts, loses a worker, goes on, tells of it, and leaves no process when it ends."""
    command = [sys.executable, "-m", "musiva.cli", "serve", "--model", str(tiny_model)]
    command += ["--port", "0", "--workers", "2", "--threads", "1", "--device", "cpu"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=child_environment(1)
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split(" at ")[1].split(" ")[0]
        with Client(url) as client:
            pids = [worker.pid for worker in client.workers()]
            before = client.generate("a fox", **ASKED)[0].image
            assert pids[0] is not None
            os.kill(pids[0], signal.SIGKILL)
            after = client.generate("a fox", **ASKED)[0].image
            assert np.array_equal(np.asarray(before), np.asarray(after))
            wait_until(lambda: [w.phase for w in client.workers()] == ["ready"] * 2, seconds=60)
            assert client.workers()[0].life == 2
            with pytest.raises(InvalidInput, match="worker: got 5; allowed: 0 to 1"):
                client.drain(5)
            told = musiva("cluster", "status", "--server", url, "--json")
            assert [one["phase"] for one in json.loads(told.out)] == ["ready"] * 2
            shown = musiva("cluster", "drain", 1, "--server", url)
            assert shown.code == 0
            assert "0 running, 0 waiting" in shown.out
            with pytest.raises(Unavailable, match="worker"):
                client.drain(1)
            pids = [worker.pid for worker in client.workers()]
        server.send_signal(signal.SIGINT)
        assert server.wait(15) == 0
    for pid in pids:
        if pid is not None:
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists())


def test_what_the_command_line_refuses(musiva: Musiva) -> None:
    for arguments, said in (
        (("cluster", "drain"), "worker: got 'none'; allowed: a worker's number behind drain"),
        (("cluster", "status", 1), "worker: got 1; allowed: a worker's number behind drain"),
        (("cluster", "explode"), "invalid choice: 'explode'"),
        (("serve", "--workers", 0), "workers: got '0'; allowed: a whole number from 1 to 1024"),
        (("serve", "--workers", 1, "--form", "ring"), "form: got 'ring'; allowed: ulysses"),
        (
            ("serve", "--degree", 3, "--form", "branches+ulysses"),
            "degree: got 3; allowed: 1, or an even number from 4 with form branches+ulysses",
        ),
        (("serve", "--cluster", "k8s", "--model", "default"), "cluster: got 'k8s'; allowed: ray"),
    ):
        done = musiva(*arguments)
        assert done.code == 2
        assert said in done.err
