"""Bench `chaos`: workers are killed, stopped, held up and taken away while they work, and what they
share with them, at random: every request ends once, with the picture that it would have had, and
nothing stays behind.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from musiva.core.errors import MusivaError
from musiva.core.types import Event, Request
from musiva.engine import Engine, Fleet, Workers, load_pipeline, shipped_models
from musiva.engine.pipeline import Pipeline
from musiva.perf.benches.base import Findings
from musiva.perf.benches.chaos_faults import SILENCE, Fault, Setting, settings

__all__ = ["KEYS", "measure"]

KEYS = ("chaos_finished_once", "chaos_pages_leaked")
FAULTS, QUICK_FAULTS = 200, 6
# Requests that are there at a time, of so many kinds.
AT_ONCE = 6
STALL = 15.0
# What is asked for: policies that keep tiles, that hold what gates say, and none.
POLICIES = ("never", "ras:warmup=2,interval=4,share=0.4", "first_block:threshold=0.1", "adaptive")
ASKED: Sequence[Mapping[str, object]] = tuple(
    {"size": size, "steps": 24, "seed": seed, "policy": policy, "num_images": 1 + seed % 2}
    for seed, (size, policy) in enumerate(
        (size, policy) for policy in POLICIES for size in ((64, 64), (96, 64))
    )
)
# Where what was computed is kept, requests are of more kinds, so that there is something to do.
PROMPTS = ("a red fox", "a green apple", "a snail", "the moon")
# Seconds between two faults, and until all has to be over.
PAUSE, PATIENCE = (0.2, 2.5), 300.0


def measure(*, quick: bool) -> Findings:
    findings = Findings()
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return findings
    pipeline = load_pipeline("default")
    draw, counts = random.Random(7), Counter[str]()
    expected: dict[int, dict[Kind, list[np.ndarray]]] = {1: {}, 2: {}}
    for name, setting in settings(pipeline).items():
        if setting is None:
            findings.rows.append({"where": name, "faults": None})
            continue
        faults = max(round((QUICK_FAULTS if quick else FAULTS) * setting.share), 1)
        print(f"{name}: {faults} faults", file=sys.stderr)
        row = _tormented(pipeline, setting, faults, draw, expected[setting.degree])
        findings.rows.append({"where": name, **row})
        for what in ("requests", "right", "pages_left"):
            counts[what] += row[what]  # type: ignore[operator]
        counts["faults"] += faults
    findings.gate.check("faults", counts["faults"], holds=counts["faults"] > 0)
    findings.figures["chaos_finished_once"] = counts["right"] / counts["requests"]
    findings.figures["chaos_pages_leaked"] = float(counts["pages_left"])
    return findings


# A prompt, and a place in `ASKED`.
Kind = tuple[str, int]


def _tormented(
    pipeline: Pipeline,
    setting: Setting,
    faults: int,
    draw: random.Random,
    expected: dict[Kind, list[np.ndarray]],
) -> dict[str, object]:
    """That many faults in a fleet, and what became of its requests. expected: see `_expect`."""
    workers = Workers(
        count=setting.count,
        degree=setting.degree,
        threads=1,
        silence=SILENCE,
        stall=STALL,
        losses=10_000,
        attempts=10_000,
    )
    with setting.begun() as scene:
        prompts = PROMPTS if scene.cache else PROMPTS[:1]
        kinds = list(product(prompts, range(len(ASKED))))
        _expect(pipeline, setting.degree, kinds, expected)
        config = Engine.Config(cache=scene.cache)
        fleet = Fleet(pipeline, workers, config, model="default", launcher=scene.launcher)
        with fleet:
            load = Load(fleet, kinds)
            done = _torment(fleet, load, faults, draw, scene.faults)
            scene.mend()
            load.finish()
            pages, cached = _left(fleet), fleet.cache_figures
    row: dict[str, object] = {
        "ranks": setting.degree,
        "workers": setting.count,
        "faults": dict(done),
        "requests": len(load.asked),
        "right": sum(one.is_right(expected[one.kind]) for one in load.asked),
        "pages_left": pages,
    }
    if cached is not None:
        row |= {"found": cached.hits, "outages": cached.outages, "damaged": cached.damaged}
    return row


def _expect(
    pipeline: Pipeline,
    degree: int,
    kinds: Sequence[Kind],
    expected: dict[Kind, list[np.ndarray]],
) -> None:
    """Add what one worker of so many ranks makes of each kind, undisturbed."""
    missing = [kind for kind in kinds if kind not in expected]
    if not missing:
        return
    workers = Workers(count=1, degree=degree, threads=1)
    with Fleet(pipeline, workers, Engine.Config(), model="default") as fleet:
        for prompt, i in missing:
            pictures = fleet.generate(prompt, **ASKED[i])  # type: ignore[call-overload]
            expected[prompt, i] = [np.asarray(one) for one in pictures]


@dataclass(slots=True, eq=False)
class Asked:
    """One request, and what was told of it."""

    kind: Kind
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

    def __init__(self, fleet: Fleet, kinds: Sequence[Kind]) -> None:
        self.asked: list[Asked] = []
        self._fleet, self._kinds, self._open = fleet, kinds, True
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
        one = Asked(kind=self._kinds[len(self.asked) % len(self._kinds)])
        self.asked.append(one)
        self._left += 1
        prompt, i = one.kind
        request: Request = self._fleet.request(prompt, **ASKED[i])  # type: ignore[arg-type]
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


def _torment(
    fleet: Fleet,
    load: Load,
    faults: int,
    draw: random.Random,
    kinds: Mapping[str, Fault],
) -> Counter[str]:
    """That many faults, of kinds and at times that are drawn."""
    done: Counter[str] = Counter()
    while done.total() < faults:
        time.sleep(draw.uniform(*PAUSE))
        ready = [one for one in fleet.members() if one.phase == "ready"]
        if not ready:
            continue
        one, kind = draw.choice(ready), draw.choice(tuple(kinds))
        with suppress(ProcessLookupError, MusivaError):
            kinds[kind](fleet, one)
            done[kind] += 1
            if done.total() % 10 == 0:
                ended = sum(one.ends for one in load.asked)
                print(f"{done.total()}/{faults} faults, {ended} requests", file=sys.stderr)
    return done


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
