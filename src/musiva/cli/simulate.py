"""`musiva simulate`: what a machine would make of a trace, without computing a picture."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from musiva.cli.machine import set_threads
from musiva.cli.pictures import check_writable, write_atomically
from musiva.core.env import Env

__all__ = ["run"]


def run(arguments: Namespace, env: Env) -> int:
    """For each scheduler, how many times as fast the requests come, and how long deadlines are."""
    set_threads(arguments.threads, env)
    for field in ("json", "chart"):
        path = getattr(arguments, field)
        if path is not None:
            check_writable(field, path.parent)
    from musiva.core.errors import InvalidInput
    from musiva.cost import Profile
    from musiva.engine import Scheduler, load_pipeline
    from musiva.perf.profile import profile_of
    from musiva.perf.traffic import read_trace, scaled, score, simulate
    from musiva.perf.traffic.chart import goodput_chart

    trace = read_trace(arguments.trace)
    pipeline = load_pipeline(arguments.model, dtype=arguments.dtype, device=arguments.device)
    if arguments.profile is None:
        print("measuring this machine, unless that was done before", file=sys.stderr, flush=True)
        profile = profile_of(pipeline, env)
    else:
        profile = Profile.read(arguments.profile)
        if profile is None:
            allowed = "a file that `musiva profile --out` wrote"
            raise InvalidInput("profile", str(arguments.profile), allowed)
    rows = []
    print(
        f"{'scheduler':14} {'speed':>6} {'deadline':>8} {'goodput':>8} {'good':>6} "
        f"{'refused':>7} {'p50 s':>7} {'p95 s':>7} {'quality':>7}"
    )
    for name in arguments.scheduler or ["goodput"]:
        config = Scheduler.Config(discipline=name, cost=profile.cost)
        for speed in arguments.speed or [1.0]:
            for longer in arguments.deadlines or [1.0]:
                asked = scaled(trace, faster=speed, deadlines=longer)
                found = score(*simulate(pipeline, config, asked))
                rows.append({"scheduler": name, "speed": speed, "deadlines": longer, **found.row()})
                print(
                    f"{name:14} {speed:6g} {longer:8g} {found.goodput:8.3f} "
                    f"{found.attainment:6.1%} {found.refused:7.1%} {_seconds(found.latency_p50)} "
                    f"{_seconds(found.latency_p95)} {_quality(found.quality)}",
                    flush=True,
                )
    if arguments.json is not None:
        write_atomically(arguments.json, json.dumps(rows, indent=1) + "\n")
    if arguments.chart is not None:
        write_atomically(arguments.chart, goodput_chart(rows))
    return 0


def _seconds(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.2f}"


def _quality(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{value:7.1f}"
