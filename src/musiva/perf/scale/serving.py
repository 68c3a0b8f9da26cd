"""A trace on workers beside each other, as `musiva.perf.traffic.simulate` is one on a single
engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from musiva.engine import Intake, Pipeline
from musiva.engine.scheduler.prices import Tariff
from musiva.perf.scale.fleet import simulate_fleet
from musiva.perf.scale.setting import Setting
from musiva.perf.traffic import Asked, Fate, Wanted
from musiva.perf.traffic.simulate import likely_kept

__all__ = ["simulate_workers"]


def simulate_workers(
    pipeline: Pipeline, setting: Setting, trace: Sequence[Asked]
) -> tuple[Sequence[Fate], list[float]]:
    """What becomes of each request, and how likely its picture keeps its floor. Pictures that are
    late are made all the same.
    """
    intake = Intake(pipeline, tariff=Tariff(setting.cost))
    wanted = [Wanted.of(intake, f"t{i}", asked) for i, asked in enumerate(trace)]
    fates = simulate_fleet(setting, wanted).fates
    return fates, [likely_kept(fate, pipeline.calibration) for fate in fates]
