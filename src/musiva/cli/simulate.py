"""`musiva simulate`: what a machine would make of a trace, without computing a picture."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from itertools import product
from typing import TYPE_CHECKING

from musiva.cli.machine import as_loaded, set_threads
from musiva.cli.pictures import check_writable, write_atomically
from musiva.core.env import Env

if TYPE_CHECKING:
    from collections.abc import Sequence

    from musiva.engine import Pipeline, Scheduler
    from musiva.perf.traffic import Asked, Score

__all__ = ["run"]

HEAD = (
    f"{'scheduler':14} {'workers':>7} {'speed':>6} {'deadline':>8} {'goodput':>8} {'good':>6} "
    f"{'refused':>7} {'p50 s':>7} {'p95 s':>7} {'quality':>7}"
)


def run(arguments: Namespace, env: Env) -> int:
    """For each scheduler and number of workers, how many times as fast the requests come, and how
    long deadlines are.
    """
    set_threads(arguments.threads, env)
    for field in ("json", "chart"):
        path = getattr(arguments, field)
        if path is not None:
            check_writable(field, path.parent)
    from musiva.core.errors import InvalidInput
    from musiva.cost import Profile
    from musiva.engine import Scheduler, load_pipeline
    from musiva.perf.profile import profile_of
    from musiva.perf.traffic import read_trace, scaled
    from musiva.perf.traffic.chart import goodput_chart

    if arguments.cores is not None and arguments.workers is None:
        raise InvalidInput("cores", arguments.cores, "a number beside --workers, which share them")
    trace = read_trace(arguments.trace)
    pipeline = load_pipeline(arguments.model, **as_loaded(arguments))
    if arguments.profile is None:
        print("measuring this machine, unless that was done before", file=sys.stderr, flush=True)
        profile = profile_of(pipeline, env)
    else:
        profile = Profile.read(arguments.profile)
        if profile is None:
            allowed = "a file that `musiva profile --out` wrote"
            raise InvalidInput("profile", str(arguments.profile), allowed)
    rows = []
    print(HEAD)
    every = product(
        arguments.scheduler or ["goodput"],
        arguments.workers or [None],
        arguments.speed or [1.0],
        arguments.deadlines or [1.0],
    )
    for name, workers, speed, longer in every:
        config = Scheduler.Config(discipline=name, cost=profile.cost)
        asked = scaled(trace, faster=speed, deadlines=longer)
        found = _scored(pipeline, config, asked, workers, arguments.cores)
        place = {"workers": workers, "speed": speed, "deadlines": longer}
        rows.append({"scheduler": name, **place, **found.row()})
        print(
            f"{name:14} {'-' if workers is None else workers:>7} {speed:6g} {longer:8g} "
            f"{found.goodput:8.3f} {found.attainment:6.1%} {found.refused:7.1%} "
            f"{_seconds(found.latency_p50)} {_seconds(found.latency_p95)} "
            f"{_quality(found.quality)}",
            flush=True,
        )
    if arguments.json is not None:
        write_atomically(arguments.json, json.dumps(rows, indent=1) + "\n")
    if arguments.chart is not None:
        curves = [{**row, "scheduler": _curve(row)} for row in rows]
        write_atomically(arguments.chart, goodput_chart(curves))
    return 0


def _scored(
    pipeline: Pipeline,
    config: Scheduler.Config,
    asked: Sequence[Asked],
    workers: int | None,
    cores: int | None,
) -> Score:
    """On one engine, or on so many workers of one rank each."""
    from musiva.engine import Workers
    from musiva.perf.scale import Cluster, Setting
    from musiva.perf.scale.serving import simulate_workers
    from musiva.perf.traffic import score, simulate

    if workers is None:
        return score(*simulate(pipeline, config, asked))
    cluster = Cluster(devices=workers, cores=math.inf if cores is None else float(cores))
    setting = Setting(workers=Workers(count=workers), cluster=cluster, scheduler=config)
    return score(*simulate_workers(pipeline, setting, asked))


def _curve(row: dict[str, object]) -> str:
    many = row["workers"]
    return str(row["scheduler"]) if many is None else f"{row['scheduler']}, {many} workers"


def _seconds(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.2f}"


def _quality(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.1f}"
