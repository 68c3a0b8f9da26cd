"""`musiva cluster`: the workers of a server that runs."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict

from musiva.cli.key import chosen_key
from musiva.client import Client, Standing, Worker, WorkerLink
from musiva.core.env import Env
from musiva.core.errors import InvalidInput

__all__ = ["run"]

HEAD = f"{'worker':>6}  {'phase':<9} {'pid':>7} {'life':>4} {'requests':>8} {'waiting':>7} "
HEAD += f"{'work':>8} {'steps':>8} {'store':>9} {'found':>16}  host"
LINKS = f"{'worker':>6}  {'link':<26} {'out':>11} {'in':>11} {'transfers':>9} {'waited':>9} "
LINKS += f"{'latency':>9} {'speed':>11}"
NAMES = {"server": "server", "ranks": "its rank", "host": "host"}
# Where a terminal begins anew.
CLEAR = "\x1b[H\x1b[J"


def run(arguments: Namespace, env: Env) -> int:
    """Raises what the server answers; `top` goes on until Ctrl-C."""
    key = chosen_key(arguments.api_key_file, env)
    if (arguments.worker is None) == (arguments.what == "drain"):
        given = "none" if arguments.worker is None else arguments.worker
        allowed = "a worker's number behind drain, and only there"
        raise InvalidInput("worker", given, allowed)
    with Client(arguments.server, api_key=key) as client:
        if arguments.what == "top":
            while True:
                _show(client.standing(), client.workers(), clear=sys.stdout.isatty())
                time.sleep(arguments.every)
        drained = arguments.what == "drain"
        workers = client.drain(arguments.worker) if drained else client.workers()
        if arguments.json:
            print(json.dumps([asdict(worker) for worker in workers], indent=2))
        else:
            _show(client.standing(), workers)
    return 0


def _show(standing: Standing, workers: Sequence[Worker], *, clear: bool = False) -> None:
    share = "-" if standing.attainment is None else f"{standing.attainment:.0%}"
    quality = "-" if standing.quality is None else f"{standing.quality:.0f}"
    lines = [
        f"{standing.running} running, {standing.waiting} waiting; {standing.goodput:.2f} pictures "
        f"a second on time, {share} of all, {standing.refused} refused; quality {quality}, "
        f"{standing.backlog:.1f} s of work a worker",
    ]
    if not workers:
        lines.append("no workers: the server makes pictures itself (musiva serve --workers N)")
    else:
        lines += [HEAD, *map(_line, workers), "", LINKS]
        lines += [_link(worker.number, link) for worker in workers for link in worker.links]
    print((CLEAR if clear else "") + "\n".join(lines), flush=True)


def _line(worker: Worker) -> str:
    pid = "-" if worker.pid is None else str(worker.pid)
    store = _size(worker.store_bytes)
    found = f"{worker.found} of {worker.found + worker.not_found}"
    return (
        f"{worker.number:>6}  {worker.phase:<9} {pid:>7} {worker.life:>4} {worker.requests:>8} "
        f"{worker.waiting:>7} {worker.work:>6.1f} s {worker.steps:>8} {store:>9} "
        f"{found:>16}  {worker.host or '-'}"
    )


def _link(worker: int, link: WorkerLink) -> str:
    waited = f"{link.seconds:.1f} s" if link.kind != "server" else "-"
    latency = "-" if link.latency is None else f"{1e3 * link.latency:.1f} ms"
    speed = "-" if link.bytes_per_second is None else f"{_size(link.bytes_per_second)}/s"
    return (
        f"{worker:>6}  {f'{NAMES[link.kind]} {link.other}':<26} {_size(link.sent_bytes):>11} "
        f"{_size(link.received_bytes):>11} {link.transfers:>9} {waited:>9} {latency:>9} {speed:>11}"
    )


def _size(num_bytes: float) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if num_bytes >= 2**power:
            return f"{num_bytes / 2**power:.1f} {unit}"
    return f"{num_bytes / 2**10:.1f} KiB"
