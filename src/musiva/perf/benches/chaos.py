"""Bench `chaos`: workers are killed, stopped, held up and taken away while they work, at random:
every request ends once, with the picture that it would have had, and nothing stays behind.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from musiva.core.errors import MusivaError
from musiva.core.types import Event, Request
from musiva.engine import Engine, Fleet, Pipeline, Workers, load_pipeline, shipped_models
from musiva.perf.benches.base import Findings

__all__ = ["KEYS", "measure"]

KEYS = ("chaos_finished_once", "chaos_pages_leaked")
FAULTS, QUICK_FAULTS = 200, 6
# Requests that are there at a time, of so many kinds.
AT_ONCE = 6
SILENCE, STALL = 1.5, 15.0
# What is asked for: policies that keep tiles, that hold what gates say, and none.
POLICIES = ("never", "ras:warmup=2,interval=4,share=0.4", "first_block:threshold=0.1", "adaptive")
ASKED: Sequence[Mapping[str, object]] = tuple(
    {"size": size, "steps": 24, "seed": seed, "policy": policy, "num_images": 1 + seed % 2}
    for seed, (size, policy) in enumerate(
        (size, policy) for policy in POLICIES for size in ((64, 64), (96, 64))
    )
)
PROMPT = "a red fox"
# Seconds between two faults, and until all has to be over.
PAUSE, PATIENCE = (0.2, 2.5), 300.0


def measure(*, quick: bool) -> Findings:
    findings = Findings()
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return findings
    pipeline = load_pipeline("default")
    draw, counts = random.Random(7), Counter[str]()
    for degree, share in ((1, 0.75), (2, 0.25)):
        expected = _expected(pipeline, degree)
        faults = max(round((QUICK_FAULTS if quick else FAULTS) * share), 1)
        workers = Workers(
            count=3 if degree == 1 else 2,
            degree=degree,
            threads=1,
            silence=SILENCE,
            stall=STALL,
            losses=10_000,
            attempts=10_000,
        )
        with Fleet(pipeline, workers, Engine.Config(), model="default") as fleet:
            load = Load(fleet)
            done = _torment(fleet, load, faults, draw)
            load.finish()
            leaked = _left(fleet)
        right = sum(one.is_right(expected[one.kind]) for one in load.asked)
        findings.rows.append(
            {
                "ranks": degree,
                "workers": workers.count,
                "faults": dict(done),
                "requests": len(load.asked),
                "right": right,
                "pages_left": leaked,
            }
        )
        counts.update(requests=len(load.asked), right=right, leaked=leaked, faults=done.total())
    findings.gate.check("faults", counts["faults"], holds=counts["faults"] > 0)
    findings.figures["chaos_finished_once"] = counts["right"] / counts["requests"]
    findings.figures["chaos_pages_leaked"] = float(counts["leaked"])
    return findings


def _expected(pipeline: Pipeline, degree: int) -> list[list[np.ndarray]]:
    """What one worker of so many ranks makes of each kind, undisturbed."""
    workers = Workers(count=1, degree=degree, threads=1)
    with Fleet(pipeline, workers, Engine.Config(), model="default") as fleet:
        return [
            [np.asarray(one) for one in fleet.generate(PROMPT, **asked)]  # type: ignore[call-overload]
            for asked in ASKED
        ]


@dataclass(slots=True, eq=False)
class Asked:
    """One request, and what was told of it."""

    kind: int
    ends: int = 0
    error: Exception | None = None
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    twice: bool = False

    def is_right(self, expected: Sequence[np.ndarray]) -> bool:
        """Whether it ended once, with these pictures to the byte."""
        whole = self.ends == 1 and self.error is None and not self.twice
        return (
            whole
            and sorted(self.pictures) == list(range(len(expected)))
            and all(np.array_equal(self.pictures[i], one) for i, one in enumerate(expected))
        )


class Load:
    """Keeps so many requests in a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.asked: list[Asked] = []
        self._fleet, self._open = fleet, True
        self._lock = threading.Condition()
        self._left = 0
        with self._lock:
            for _ in range(AT_ONCE):
                self._ask()

    def finish(self) -> None:
        """Ask for no more, and wait for all that was."""
        end = time.monotonic() + PATIENCE
        with self._lock:
            self._open = False
            while self._left and time.monotonic() < end:
                self._lock.wait(1.0)

    def _ask(self) -> None:
        one = Asked(kind=len(self.asked) % len(ASKED))
        self.asked.append(one)
        self._left += 1
        request: Request = self._fleet.request(PROMPT, **ASKED[one.kind])  # type: ignore[arg-type]
        self._fleet.submit(request, lambda event: self._hear(one, event))

    def _hear(self, one: Asked, event: Event) -> None:
        with self._lock:
            if event.kind == "picture":
                one.twice |= event.index in one.pictures
                one.pictures[event.index] = np.asarray(event.picture)
            elif event.kind in ("done", "failed"):
                one.ends += 1
                one.error = event.error
                self._left -= 1
                if self._open:
                    self._ask()
                self._lock.notify_all()


def _torment(fleet: Fleet, load: Load, faults: int, draw: random.Random) -> Counter[str]:
    """That many faults, of kinds and at times that are drawn."""
    done: Counter[str] = Counter()
    while done.total() < faults:
        time.sleep(draw.uniform(*PAUSE))
        ready = [one for one in fleet.members() if one.phase == "ready" and one.pid]
        if not ready:
            continue
        one = draw.choice(ready)
        assert one.pid is not None
        kind = draw.choice(tuple(KINDS))
        with suppress(ProcessLookupError, MusivaError):
            KINDS[kind](fleet, one.number, one.pid)
            done[kind] += 1
            if done.total() % 10 == 0:
                ended = sum(one.ends for one in load.asked)
                print(f"{done.total()}/{faults} faults, {ended} requests", file=sys.stderr)
    return done


def _kill(fleet: Fleet, number: int, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _stop(fleet: Fleet, number: int, pid: int) -> None:
    """It never answers again, by itself."""
    os.kill(pid, signal.SIGSTOP)


def _stall(fleet: Fleet, number: int, pid: int) -> None:
    """It is held up for less time than it takes to be given up."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(SILENCE / 3)
    os.kill(pid, signal.SIGCONT)


def _drain(fleet: Fleet, number: int, pid: int) -> None:
    fleet.drain(number)


KINDS: Mapping[str, Callable[[Fleet, int, int], None]] = {
    "killed": _kill,
    "stopped": _stop,
    "stalled": _stall,
    "drained": _drain,
}


def _left(fleet: Fleet) -> int:
    """Pages of requests, none of which is there any more."""
    end = time.monotonic() + PATIENCE
    while len(fleet.members()) > sum(one.phase == "ready" for one in fleet.members()):
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    # Until all have answered once more.
    time.sleep(SILENCE)
    return fleet.store_figures.pages
