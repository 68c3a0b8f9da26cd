"""Bench `server`: a real server under 64 clients, each of which asks again as soon as it is
answered.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from musiva.core.errors import ExecutionFailed
from musiva.perf.benches.base import Findings
from musiva.perf.benches.http_client import Answer, Client, pixels_hash
from musiva.perf.child import Message, child_environment
from musiva.perf.measure import percentile

__all__ = ["KEYS", "Load", "measure", "running_server"]

KEYS = ("server_requests_ok", "server_memory_growth")
COMPARED = 0.05
START_SECONDS = 120.0
END_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Memory is compared between a fifth of the time, when all is warm, and its end."""

    clients: int = 64
    seconds: float = 600.0
    steps: Sequence[int] = (4, 8, 12, 20)
    model: str = "default"


def measure(*, quick: bool, load: Load | None = None) -> Findings:
    """The figures count a picture that differs from `generate` as not ok; speeds need all compared
    ones to agree.
    """
    load = load or Load(seconds=30.0 if quick else 600.0, steps=(4, 8) if quick else Load().steps)
    import torch

    findings = Findings()
    with running_server(load.model, torch.get_num_threads()) as (process, url):
        sizes: list[str] = _get(f"{url}/v1/models")["data"][0]["sizes"]
        answers, memory, seconds = _drive(load, url, sizes, _resident(process.pid))
        end = _end(process)
    findings.gate.check("ended_cleanly_seconds", end, holds=end is not None)
    findings.gate.check("answers", len(answers), holds=len(answers) >= load.clients)
    compared, differing = _compare(load.model, answers)
    findings.gate.check("compared", compared, holds=compared > 0)
    findings.gate.check("differing", differing, holds=not differing)
    faults = [answer.fault for answer in answers if answer.fault]
    findings.figures["server_requests_ok"] = 1 - (len(faults) + differing) / max(len(answers), 1)
    if not quick:
        findings.figures["server_memory_growth"] = memory[-1][1] / _at(memory, load.seconds / 5) - 1
    findings.rows += _rows(answers, memory, seconds, faults)
    return findings


@contextmanager
def running_server(model: str, threads: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`musiva serve` on a free port, and its address once it accepts. Raises ExecutionFailed if it
    never does.
    """
    command = [sys.executable, "-m", "musiva.cli", "serve", "--model", model, "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=child_environment(threads)
    )
    # A server that hangs while it starts is ended, which ends the wait for its line too.
    alarm = threading.Timer(START_SECONDS, process.kill)
    alarm.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        alarm.cancel()
        address = re.search(r"http://[^\s]+", line)
        if address is None:
            raise ExecutionFailed(
                f"musiva serve did not start: {line!r}, exit code {process.wait()}"
            )
        yield process, address[0].rstrip("/")
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _drive(
    load: Load, url: str, sizes: Sequence[str], resident: Callable[[], int]
) -> tuple[list[Answer], list[tuple[float, int]], float]:
    """Answers, memory over time as (seconds, bytes), and the seconds until the last answer."""
    answers: list[Answer] = []
    start = time.monotonic()

    def work(index: int) -> None:
        client = Client(url, index, sizes, load.steps, COMPARED)
        while time.monotonic() - start < load.seconds:
            answers.append(client.ask())

    workers = [threading.Thread(target=work, args=(index,)) for index in range(load.clients)]
    for worker in workers:
        worker.start()
    memory: list[tuple[float, int]] = []
    while (now := time.monotonic() - start) < load.seconds:
        memory.append((now, resident()))
        time.sleep(min(max(load.seconds / 60, 0.1), load.seconds - now + 0.01))
    memory.append((load.seconds, resident()))
    for worker in workers:
        worker.join()
    return answers, memory, time.monotonic() - start


def _compare(model: str, answers: Sequence[Answer]) -> tuple[int, int]:
    """How many answers were compared with what this process generates, and how many differ."""
    from musiva.engine import Engine

    chosen = [answer for answer in answers if answer.hashes]
    differing = 0
    with Engine.load(model) as engine:
        for answer in chosen:
            body = answer.body
            width, height = map(int, str(body["size"]).split("x"))
            pictures = engine.generate(
                str(body["prompt"]),
                size=(width, height),
                steps=body["steps"],
                seed=body["seed"],
                guidance=body["guidance_scale"],
                num_images=body["n"],
            )
            differing += tuple(map(pixels_hash, pictures)) != answer.hashes
    return len(chosen), differing


def _rows(
    answers: Sequence[Answer],
    memory: Sequence[tuple[float, int]],
    seconds: float,
    faults: Sequence[str],
) -> list[Mapping[str, object]]:
    good = [answer for answer in answers if answer.fault is None]
    taken = [answer.seconds for answer in good] or [0.0]
    pictures = sum(int(str(answer.body["n"])) for answer in good)
    spread = {f"p{percent}": percentile(taken, percent) for percent in (50, 90, 99)}
    return [
        {
            "what": "throughput",
            "requests": len(good),
            "pictures": pictures,
            "pictures_per_second": pictures / seconds,
        },
        {"what": "latency in seconds", **spread, "max": max(taken)},
        {
            "what": "resident bytes over seconds",
            "points": [[round(at, 1), size] for at, size in memory],
        },
        {"what": "faults", "count": len(faults), "first": list(faults[:5])},
    ]


def _at(memory: Sequence[tuple[float, int]], seconds: float) -> int:
    return next(size for at, size in memory if at >= seconds)


def _resident(pid: int) -> Callable[[], int]:
    def read() -> int:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        if found is None:
            raise ExecutionFailed(f"the server (process {pid}) ended during the run")
        return int(found[1]) * 1024

    return read


def _end(process: subprocess.Popen[str]) -> float | None:
    """Seconds from Ctrl-C to a clean exit; None if it took too long or failed."""
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic() - start if code == 0 else None


def _get(url: str) -> Message:
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)
