"""Bench `scheduler`: the time of a tick, and how well the cost model knows steps that it has not
seen.
"""

from __future__ import annotations

import random
import statistics
import time

from musiva.engine import load_pipeline, shipped_models
from musiva.perf.benches.base import Findings
from musiva.perf.benches.held_out import SCENES, SINGLES
from musiva.perf.measure import percentile
from musiva.perf.profile import errors_of, measure_profile, repeated_steps
from musiva.perf.traffic.busy import busy

__all__ = ["KEYS", "measure"]

KEYS = ("cost_model_median_error", "cost_model_p95_error", "tick_ms_256")
REQUESTS = 256
RUNS = 5
TICKS = 200
PROFILE_SECONDS, UNSEEN_SECONDS = 40.0, 90.0


def measure(*, quick: bool) -> Findings:
    findings = Findings()
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return findings
    pipeline = load_pipeline("default")
    profile = measure_profile(pipeline, seconds=PROFILE_SECONDS / (4 if quick else 1), check=False)
    # Of another seed than the steps that were fitted.
    draw, unseen = random.Random(1), UNSEEN_SECONDS / (6 if quick else 1)
    steps = list(repeated_steps(pipeline, profile.cost, draw, seconds=unseen, runs=RUNS))
    errors = errors_of(steps)
    figures = findings.figures
    figures["cost_model_median_error"] = errors["median"]
    figures["cost_model_p95_error"] = errors["p95"]
    findings.rows.append({"what": "unseen steps", "steps": len(steps), "runs": RUNS, **errors})
    for kind in ("encode", "denoise", "decode"):
        if of_kind := [step for step in steps if step.work.kind == kind]:
            found = errors_of(of_kind)
            findings.rows.append({"what": f"{kind} alone", "steps": len(of_kind), **found})
    findings.rows.append({"what": "profile", "seconds": profile.seconds, "steps": profile.steps})
    loop = busy(pipeline, profile.cost, (*SINGLES, *SCENES), requests=REQUESTS)
    again = [loop.scheduler.schedule(loop.state, loop.clock()) for _ in range(2)]
    same = again[0] == again[1]
    findings.gate.check("same_state_same_plan", same, holds=same)
    taken = []
    for _ in range(TICKS):
        start = time.perf_counter()
        loop.scheduler.schedule(loop.state, loop.clock())
        taken.append(1e3 * (time.perf_counter() - start))
    figures["tick_ms_256"] = statistics.median(taken)
    findings.rows.append(
        {
            "what": f"tick of {len(loop.state.samples)} requests in ms",
            "median": statistics.median(taken),
            "p95": percentile(taken, 95),
        }
    )
    return findings
