"""Points of bench `serve`: one contender, one load, one deadline; run for real, and simulated."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from musiva.cost import CostModel
from musiva.engine import Engine, InlineExecutor, Intake, Pipeline, Scheduler, StepLoop
from musiva.perf.benches.contenders import Contender
from musiva.perf.quality import psnr
from musiva.perf.traffic import (
    Asked,
    Fate,
    Mix,
    Pace,
    Score,
    drive,
    make_trace,
    scaled,
    score,
    simulate,
)
from musiva.policy import floor_db

__all__ = ["Point", "Points", "Setting"]

T = TypeVar("T")
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the bench asks for. sizes: with weights. scales: of deadlines, times what the dense run
    takes alone. loads: times the rate at which the dense engine saturates.
    """

    prompts: Sequence[str]
    sizes: Mapping[Size, float]
    steps: int
    min_quality: int
    arrivals: int
    loads: Sequence[float]
    scales: Sequence[float]
    seed: int = 17

    def digest(self, *more: object) -> str:
        """Of all that points depend on."""
        text = json.dumps([repr(self), *map(repr, more)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Point:
    """pace: of the machine, second by second, against the cost model; none where it is simulated at
    the pace that was profiled.
    """

    contender: str
    load: float
    scale: float
    score: Score
    pace: Sequence[float] = ()

    def row(self, what: str) -> Mapping[str, object]:
        own = {"contender": self.contender, "load": self.load, "deadline": self.scale}
        pace = {"pace": statistics.fmean(self.pace)} if self.pace else {}
        return {"what": what, **own, **pace, **self.score.row()}


@dataclass(slots=True)
class Points:
    """Runs points on one pipeline, and remembers those that are done in `cache`, so that a run that
    was interrupted goes on where it was. dense: the picture of each request of the trace by its own
    dense run. rate: pictures a second of all dense runs at once, in packs.
    """

    pipeline: Pipeline
    cost: CostModel
    setting: Setting
    cache: Path
    alone: Mapping[Size, float] = field(default_factory=dict)
    rate: float = 0.0
    dense: list[np.ndarray] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the dense pictures, and measure the rate at which they come and what the dense run
        takes alone, or remember that.
        """
        with Engine(self.pipeline) as engine:
            found = self.remembered("alone", lambda: self._measured_alone(engine))
        self.alone = {size: found["{}x{}".format(*size)] for size in self.setting.sizes}
        file = self.cache / f"{self.setting.digest('dense')}.npz"
        if not file.is_file():
            pictures, rate = self._saturated()
            self.cache.mkdir(parents=True, exist_ok=True)
            np.savez(file, *pictures, rate=rate)
        with np.load(file) as kept:
            self.rate = float(kept["rate"])
            self.dense = [kept[f"arr_{i}"] for i in range(self.setting.arrivals)]

    def remembered(self, name: str, measure: Callable[[], T]) -> T:
        """What was measured of that name, in an earlier run perhaps."""
        file = self.cache / f"{self.setting.digest(name)}.json"
        if file.is_file():
            return json.loads(file.read_text("utf-8"))
        found = measure()
        self.cache.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found), "utf-8")
        return found

    def trace(self, rate: float, scale: float | None) -> list[Asked]:
        """The requests of all points, at a rate, with deadlines of a scale."""
        setting = self.setting
        deadlines = {} if scale is None else {s: scale * x for s, x in self.alone.items()}
        mix = Mix(
            prompts=setting.prompts,
            sizes=setting.sizes,
            deadlines=deadlines,
            steps=setting.steps,
            min_quality=setting.min_quality,
            max_quality=100,
        )
        return make_trace("poisson", mix, rate=rate, count=setting.arrivals, seed=setting.seed)

    def measured(self, contender: Contender, load: float, scale: float) -> Point:
        """For real, or what was remembered of it."""

        def measure() -> dict[str, Any]:
            fates, pace = self._drive(contender, self.trace(load * self.rate, scale))
            kept = [self._is_kept(i, fate) for i, fate in enumerate(fates)]
            return {"score": score(fates, kept).row(), "pace": pace}

        name = f"{contender.name} {contender.asks} {load} {scale}"
        found = self.remembered(name, measure)
        return Point(contender.name, load, scale, Score(**found["score"]), found["pace"])

    def simulated(
        self, contender: Contender, load: float, scale: float, pace: Sequence[float] = ()
    ) -> Point:
        """In simulated time, or what was remembered of it; at one pace of the machine or none."""

        def simulated() -> Mapping[str, object]:
            trace = contender.rewritten(self.trace(load * self.rate, scale))
            config = Scheduler.Config(discipline=contender.discipline, cost=self.cost)
            return score(*simulate(self.pipeline, config, trace, pace)).row()

        name = f"{contender.name} {contender.asks} {load} {scale} simulated {bool(pace)}"
        found: dict[str, Any] = dict(self.remembered(name, simulated))
        return Point(contender.name, load, scale, Score(**found), pace)

    def same_alone(self, count: int) -> int:
        """How many of the first dense pictures have the same bytes when each runs alone."""
        same = 0
        with Engine(self.pipeline) as engine:
            for asked, packed in zip(self.trace(1.0, None)[:count], self.dense, strict=False):
                options: dict[str, Any] = {"size": asked.size, "steps": asked.steps}
                (picture,) = engine.generate(asked.prompt, seed=asked.seed, **options)
                same += np.array_equal(np.asarray(picture), packed)
        return same

    def _drive(
        self, contender: Contender, trace: Sequence[Asked]
    ) -> tuple[list[Fate], Sequence[float]]:
        pace = Pace(self.cost)
        config = Scheduler.Config(discipline=contender.discipline, cost=self.cost)
        executor = InlineExecutor(self.pipeline)
        loop = StepLoop(executor, config.build(), pace.observe, clock=pace.now)
        pace.loop = loop
        intake = Intake(self.pipeline, tariff=loop.scheduler.tariff)
        return drive(loop, intake, contender.rewritten(trace), pace), pace.factors()

    def _is_kept(self, index: int, fate: Fate) -> float:
        if fate.picture is None:
            return 0.0
        floor = floor_db(self.setting.min_quality)
        return float(psnr(fate.picture, self.dense[index]) >= floor)

    def _saturated(self) -> tuple[list[np.ndarray], float]:
        """All of the trace at once, in packs of ours: its pictures, and how many a second."""
        dense = Contender("dense", "fifo", {"min_quality": None, "max_quality": None})
        fates, _ = self._drive(dense, scaled(self.trace(1.0, None), faster=1e9))
        pictures = [fate.picture for fate in fates if fate.picture is not None]
        assert len(pictures) == len(fates), "nothing is refused or late without a deadline"
        taken = max(fate.seconds for fate in fates if fate.seconds is not None)
        return pictures, len(pictures) / taken

    def _measured_alone(self, engine: Engine) -> dict[str, float]:
        sizes = self.setting.sizes
        return {"{}x{}".format(*size): self._seconds_alone(engine, size) for size in sizes}

    def _seconds_alone(self, engine: Engine, size: Size) -> float:
        taken, steps = [], self.setting.steps
        for seed in range(4):
            start = time.perf_counter()
            engine.generate(self.setting.prompts[seed], size=size, steps=steps, seed=seed)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[1:])
