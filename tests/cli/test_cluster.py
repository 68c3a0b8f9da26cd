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

from musiva.cli import cluster
from musiva.client import Client, Standing, Worker, WorkerLink
from musiva.core.errors import InvalidInput, Unavailable
from musiva.perf.child import child_environment
from tests.cli.conftest import Musiva
from tests.server.live import wait_until

IDLE = Standing(
    waiting=0,
    running=0,
    backlog=0.0,
    backlog_floor=0.0,
    goodput=0.0,
    attainment=None,
    refused=0,
    quality=None,
)
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


def test_links_are_told_with_what_went_over_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = {"sent_bytes": 3 << 20, "received_bytes": 512, "transfers": 7, "seconds": 1.25}
    unknown = {"latency": None, "bytes_per_second": None}
    links = (
        WorkerLink(kind="server", other="a", **counts, **unknown),  # type: ignore[arg-type]
        WorkerLink(kind="host", other="10.0.0.2", latency=2e-3, bytes_per_second=2**31, **counts),  # type: ignore[arg-type]
    )
    worker = Worker(
        number=1,
        phase="ready",
        pid=5,
        life=1,
        requests=2,
        waiting=1,
        work=3.0,
        steps=9,
        store_bytes=0,
        found=3,
        not_found=1,
        host="here",
        links=links,
    )
    cluster._show(IDLE, [worker])
    _, _, row, _, _, server, host = capsys.readouterr().out.splitlines()
    assert " ".join(row.split()) == "1 ready 5 1 2 1 3.0 s 9 0.0 KiB 3 of 4 here"
    assert " ".join(server.split()) == "1 server a 3.0 MiB 0.5 KiB 7 - - -"
    assert " ".join(host.split()) == "1 host 10.0.0.2 3.0 MiB 0.5 KiB 7 1.2 s 2.0 ms 2.0 GiB/s"
