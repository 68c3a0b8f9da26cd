"""Bench `scale`: how true the simulator of many devices is, how long planning takes, and what is
foretold of more devices than there are.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch

from musiva.cost import CostModel
from musiva.engine import (
    Fleet,
    Front,
    Intake,
    Pipeline,
    Scheduler,
    Workers,
    load_pipeline,
    shipped_models,
)
from musiva.engine.scheduler.prices import Tariff
from musiva.perf.benches.base import Findings
from musiva.perf.benches.held_out import SCENES, SINGLES
from musiva.perf.profile import measure_profile
from musiva.perf.scale import Cluster, Course, Death, Link, Setting, simulate_fleet
from musiva.perf.scale.growth import grown, published
from musiva.perf.scale.outline import outlines
from musiva.perf.scale.planning import plan_all
from musiva.perf.scale.validation import Plan, validate
from musiva.perf.traffic import Mix, Wanted, make_trace

__all__ = ["KEYS", "measure"]

KEYS = ("simulator_error", "plan_ms_1024x64")
PROFILE_SECONDS, QUICK_PROFILE_SECONDS = 40.0, 12.0
SIZES = {(64, 64): 2.0, (96, 64): 1.0, (96, 96): 1.0}
PLAN = Plan(sizes=SIZES)
QUICK_PLAN = Plan(
    sizes=SIZES,
    turns=((True, "poisson", 0.6), (False, "poisson", 0.7), (False, "bursty", 0.6)),
    seconds=7.0,
    times=1,
)
WORKERS, EACH, TIMES = 64, 16, 15
DEVICES, QUICK_DEVICES, CHANGED_AT = (8, 64, 512), (8,), 64
PROMPTS = (*SINGLES, *SCENES)


def measure(*, quick: bool) -> Findings:
    findings = Findings()
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return findings
    with _one_thread():
        pipeline = load_pipeline("default")
        seconds = QUICK_PROFILE_SECONDS if quick else PROFILE_SECONDS
        cost = measure_profile(pipeline, seconds=seconds, check=False).cost
    if not _is_sound(findings, pipeline, cost):
        return findings
    planned = plan_all(pipeline, cost, PROMPTS, workers=WORKERS, each=EACH, times=TIMES)
    findings.figures["plan_ms_1024x64"] = planned.total
    findings.rows += planned.rows(WORKERS)

    def fleet(workers: Workers, config: Front.Config) -> Fleet:
        return Fleet(pipeline, workers, config, model=pipeline.name)

    found = validate(pipeline, fleet, cost, PROMPTS, QUICK_PLAN if quick else PLAN)
    findings.figures["simulator_error"] = found.error
    findings.rows += found.rows
    # Of a front that looks after many.
    placing = found.cluster.placing + 1e-3 * statistics.median(planned.placing)
    machine = replace(found.cluster, placing=placing)
    findings.rows += published(machine)
    for outline in outlines().values():
        counts = QUICK_DEVICES if quick else DEVICES
        print(f"extrapolating {outline.name}", file=sys.stderr, flush=True)
        changed_at = None if quick else CHANGED_AT
        findings.rows += grown(outline, counts, machine, changed_at=changed_at)
    return findings


@contextmanager
def _one_thread() -> Iterator[None]:
    """As workers have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_sound(findings: Findings, pipeline: Pipeline, cost: CostModel) -> bool:
    """Whether the same trace comes to the same, to the byte, and every request ends once, though
    workers die.
    """
    intake = Intake(pipeline, tariff=Tariff(cost))
    mix = Mix(prompts=PROMPTS, sizes=SIZES, steps=8)
    alone = intake.seconds_alone(intake.request(PROMPTS[0], size=(64, 64), steps=8))
    trace = make_trace("bursty", mix, rate=2.0 / alone, count=48, seed=1)
    wanted = [Wanted.of(intake, f"r{i}", asked) for i, asked in enumerate(trace)]
    draw = random.Random(2)
    deaths = [
        Death(draw.uniform(0.0, trace[-1].at), draw.randrange(3), 2.0 * alone) for _ in range(4)
    ]
    setting = Setting(
        workers=Workers(count=3, losses=100),
        cluster=Cluster(devices=3, cores=2, front=Link(latency=1e-3)),
        scheduler=Scheduler.Config(cost=cost),
    )
    first, again = (simulate_fleet(setting, wanted, deaths) for _ in range(2))
    same = _text(first) == _text(again)
    once = set(first.ends) == {1} and all(fate.seconds for fate in first.fates)
    gate = findings.gate
    gate.check("same_trace_same_bytes", same, holds=same)
    gate.check("every_request_ends_once", once, holds=once)
    return gate.ok


def _text(course: Course) -> str:
    return json.dumps(asdict(course))
