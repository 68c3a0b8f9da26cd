"""A diffusers pipeline behind a queue, first come first served, against ours on the same trace."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from musiva.perf.benches.base import Findings
from musiva.perf.benches.contenders import Contender
from musiva.perf.benches.serve_points import Points
from musiva.perf.child import run_child
from musiva.perf.traffic import Asked

__all__ = ["goodput_over_diffusers", "served_in_turn"]

LOADS = (0.8, 1.2)
QUICK_LOADS, QUICK_ARRIVALS = LOADS[:1], 6
# Pictures of each size.
TIMED = 20


def goodput_over_diffusers(
    findings: Findings, points: Points, ours: Contender, *, quick: bool
) -> float | None:
    """At 0.8 of its capacity, with the longest deadline: with shorter ones a queue without packs
    is late more often. The rest goes into rows.
    """
    trace = points.trace(1.0, None)[: QUICK_ARRIVALS if quick else None]
    sizes = sorted({asked.size for asked in trace if asked.size is not None})
    timed = [
        asked for size in sizes for asked in [one for one in trace if one.size == size][:TIMED]
    ]
    question = {
        "model": points.pipeline.name,
        "steps": points.setting.steps,
        "guidance": points.pipeline.defaults.guidance,
        "requests": [
            {"prompt": asked.prompt, "seed": asked.seed, "size": asked.size} for asked in timed
        ],
    }
    module = "musiva.perf.benches.diffusers_times"
    taken: list[float] = run_child(module, question, threads=torch.get_num_threads())["seconds"]
    # A picture takes what its size takes, whatever it shows.
    of_size = {
        size: statistics.median(
            x for asked, x in zip(timed, taken, strict=True) if asked.size == size
        )
        for size in sizes
    }
    seconds = [of_size[asked.size] for asked in trace if asked.size is not None]
    capacity = len(seconds) / sum(seconds)
    scale, over = max(points.setting.scales), None
    for load in QUICK_LOADS if quick else LOADS:
        rate = load * capacity
        on_time = served_in_turn(points.trace(rate, scale)[: len(seconds)], seconds)
        theirs = sum(on_time) / len(on_time)
        # Loads of points are relative to the rate of our own dense engine.
        mine = points.measured(ours, rate / points.rate, scale)
        findings.rows.append(mine.row(f"at {load} of what diffusers can do, {capacity:.2f}/s"))
        findings.rows.append(
            {"what": "diffusers", "load": load, "deadline": scale, "attainment": theirs}
        )
        if load == LOADS[0]:
            over = mine.score.attainment / max(theirs, 1e-9)
    return over


def served_in_turn(trace: Sequence[Asked], seconds: Sequence[float]) -> list[bool]:
    """Whether each request is on time with one server that takes so many seconds for each: what
    waiting would show is exact without waiting (Lindley 1952).
    """
    free, found = 0.0, []
    for asked, taken in zip(trace, seconds, strict=True):
        free = max(free, asked.at) + taken
        found.append(asked.deadline is None or free <= asked.at + asked.deadline)
    return found
