"""A trace in simulated time: the same loop, scheduler and policies, over an executor that asks the
cost model instead of a device.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from musiva.core.types import DecodeItem, DenoiseItem, EncodeItem, Outcome, StepPlan, StepResult
from musiva.cost import CostModel
from musiva.engine import Intake, Pipeline, Scheduler, StepLoop
from musiva.engine.scheduler.prices import work_of
from musiva.engine.slot import Checkpoint, Slot, is_whole
from musiva.engine.state import EngineState
from musiva.perf.traffic.clock import VirtualClock
from musiva.perf.traffic.drive import Fate, drive
from musiva.perf.traffic.trace import Asked
from musiva.policy import Calibration, floor_db

__all__ = ["SimulatedExecutor", "likely_kept", "simulate"]

# Of the logarithm of surprise: its mean, and its deviation between pictures and within one, as
# measured on the default model.
MEAN, BETWEEN, WITHIN = 0.05, 0.23, 0.33
# The 5th percentile of a normal distribution is so many of its deviations below the mean.
FIFTH = 1.645
NOTHING = torch.empty(0, 0)


class SimulatedExecutor:
    """Takes the time that a cost model says, and makes no pictures. What policies measure is drawn
    as it is distributed, of each sample the same in every run. pace: what a step that begins in a
    second of the run takes, times what the cost model says; the last one holds from then on.
    """

    def __init__(self, cost: CostModel, clock: VirtualClock, pace: Sequence[float] = ()) -> None:
        self.cost = cost
        self.clock = clock
        self.pace = pace
        self.state: EngineState | None = None
        # Of each sample, the last evaluation at which all of it was computed.
        self._whole: dict[str, int] = {}

    def execute(self, plan: StepPlan) -> StepResult:
        assert self.state is not None, "it is told of the record that it works for"
        work = work_of(plan, self.state)
        seconds = self.cost.seconds(work)
        if self.pace:
            seconds *= self.pace[min(int(self.clock.now()), len(self.pace) - 1)]
        self.clock.advance(seconds)
        return self.result(plan, seconds, work.rows)

    def result(self, plan: StepPlan, seconds: float, rows: int) -> StepResult:
        """What comes of a plan that took so long."""
        for name in plan.release:
            self._whole.pop(name, None)
        for item in plan.items:
            if isinstance(item, DenoiseItem) and is_whole(item.actions[-1]):
                self._whole[item.sample] = item.evaluation
            elif isinstance(item, DecodeItem) and _is_last(item):
                self._whole.pop(item.sample, None)
        outcomes = tuple(
            Outcome(measured=_measured(item))
            if isinstance(item, DenoiseItem)
            else Outcome(picture=0 if _is_last(item) else None)
            for item in plan.items
        )
        return StepResult(plan.number, outcomes, seconds, rows)

    def put_latent(self, sample: str, latent: Tensor) -> None:
        """There are none."""

    def checkpoint(self, sample: str) -> Checkpoint | None:
        """With no latent in it."""
        evaluation = self._whole.get(sample)
        return None if evaluation is None else Checkpoint(evaluation, Slot(NOTHING, (1, 1, 1)))

    def restore(self, sample: str, checkpoint: Checkpoint) -> None:
        """There is no latent to put back."""

    def check_integrity(self, live: Sequence[str]) -> None:
        left = set(self._whole) - set(live)
        assert not left, f"checkpoints of samples that are gone: {sorted(left)}"


def simulate(
    pipeline: Pipeline,
    config: Scheduler.Config,
    trace: Sequence[Asked],
    pace: Sequence[float] = (),
) -> tuple[list[Fate], list[float]]:
    """What becomes of each request, and how likely its picture keeps its floor. The scheduler has
    to have a cost model. pace: see `SimulatedExecutor`.
    """
    assert config.cost is not None
    clock = VirtualClock()
    executor = SimulatedExecutor(config.cost, clock, pace)
    loop = StepLoop(executor, config.build(), clock=clock.now)
    executor.state = loop.state
    intake = Intake(pipeline, tariff=loop.scheduler.tariff)
    fates = drive(loop, intake, trace, clock)
    return fates, [likely_kept(fate, pipeline.calibration) for fate in fates]


def likely_kept(fate: Fate, calibration: Calibration | None) -> float:
    """How likely a picture keeps what was promised, by what was measured of the lowest level that
    it used, if decibels are distributed normally.
    """
    report = fate.report
    if report is None:
        return 0.0
    if calibration is None or report.used == 100:
        return 1.0
    rows = [row for row in calibration.table if row.psnr_low >= floor_db(report.used) - 1e-6]
    if not rows:
        return 1.0
    row = min(rows, key=lambda row: row.psnr_low)
    deviation = max(row.psnr - row.psnr_low, 1e-3) / FIFTH
    above = (row.psnr - floor_db(report.promised)) / deviation
    return 0.5 * (1.0 + math.erf(above / math.sqrt(2.0)))


def _is_last(item: EncodeItem | DecodeItem) -> bool:
    return isinstance(item, DecodeItem) and item.last is None


def _measured(item: DenoiseItem) -> dict[str, float]:
    if "surprise" not in item.probes or item.evaluation == 0:
        return {}
    own = random.Random(f"{item.seed}").gauss(MEAN, BETWEEN)
    here = random.Random(f"{item.seed} {item.last}").gauss(0.0, WITHIN)
    return {"surprise": math.exp(own + here)}
