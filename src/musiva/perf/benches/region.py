"""Bench `region`: how cheaply the policy `adaptive` comes near to the dense run, against fewer
steps; and what a promised quality keeps.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from musiva.engine import shipped_models
from musiva.perf.benches.base import Findings
from musiva.perf.benches.curves import Point, lead
from musiva.perf.benches.held_out import SCENES, SINGLES
from musiva.perf.child import Message, run_child
from musiva.policy import floor_db

__all__ = ["KEYS", "measure", "points_of", "prompts_of", "trace"]

KEYS = (
    "all_active_bytes_equal",
    "all_active_overhead",
    "region_speedup_50",
    "region_speedup_28",
    "region_lead_fewer_steps_50",
    "region_lead_fewer_steps_28",
    "region_lead_fewer_steps_converged_50",
    "region_lead_fewer_steps_converged_28",
    "probe_overhead",
    "min_quality_honoured",
    "min_quality_speedup_28db",
)
STEPS = (50, 28)
# Of the converged run, over the steps of the dense one.
MORE = 4
FIRST_SEED = 1000
# A promise is about few pictures of many, so each prompt is drawn at more seeds.
PROMISED_SEEDS = (FIRST_SEED, 2000, 3000)
TOLERANCES = (0.25, 0.2, 0.18, 0.165, 0.15, 0.14, 0.13, 0.12, 0.1)
FEWER = (6, 7, 8, 9, 10, 12, 14)
# By a solver of another order or on another grid, at so many steps; none came near the model's own.
OTHER_STEPS = 9
OTHER_SOLVERS = ({"sampler": "heun"}, {"sampler": "euler"}, {"spacing": "karras"})
LEAD_DB = (30.0, 35.0)
MEAN_DB, LOW_DB, FOREGROUND_DB = 30.0, 26.0, 27.0
MIN_QUALITY = 60
OVERHEAD_PAIRS = (200, 12)
HERE = Path(__file__).parent
# Every tile active, by the policy that has tiles; every evaluation computed, and probed.
ALL_ACTIVE = "ras:share=1"
PROBED = f"{HERE / 'probed.py'}:Probed"


def measure(*, quick: bool) -> Findings:
    findings = Findings()
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return findings
    for steps in STEPS:
        _measure_curves(findings, steps, quick=quick)
    _measure_promise(findings, quick=quick)
    for key, policy in (("all_active", ALL_ACTIVE), ("probe", PROBED)):
        _measure_overhead(findings, key, policy, quick=quick)
    return findings


def prompts_of(*, quick: bool) -> tuple[list[str], range]:
    """Singles and scenes in turn, and which of them are scenes."""
    pairs = list(zip(SINGLES, SCENES, strict=True))[: 2 if quick else None]
    return list(chain.from_iterable(pairs)), range(1, 2 * len(pairs), 2)


def trace(
    settings: Sequence[Message],
    steps: int,
    *,
    quick: bool,
    reference: bool = False,
    first_seed: int = FIRST_SEED,
) -> Message:
    """What `traced` answers, at the largest size of the default model."""
    question = {
        "model": "default",
        "prompts": prompts_of(quick=quick)[0],
        "first_seed": first_seed,
        "size": [128, 128],
        "steps": steps,
        "settings": list(settings),
        "reference_steps": MORE * steps if reference else None,
    }
    threads = min(2, os.cpu_count() or 1)
    return run_child("musiva.perf.benches.traced", question, threads=threads, timeout=4 * 3600)


def points_of(
    rows: Mapping[str, Mapping[str, Sequence[float]]], against: str = "psnr"
) -> dict[str, list[Point]]:
    """Curves by method; a setting's name is "METHOD SETTING". against: "psnr" is to the dense run,
    "reference" to the converged one.
    """
    curves: dict[str, list[Point]] = {}
    dense = rows["dense"]["seconds"]
    for name, row in rows.items():
        method, _, setting = name.partition(" ")
        share = tuple(own / whole for own, whole in zip(row["seconds"], dense, strict=True))
        columns = (tuple(row[against]), tuple(row["foreground"]), share, tuple(row["computed"]))
        curves.setdefault(method, []).append(Point(method, setting, *columns))
    return curves


def _settings(steps: int, *, quick: bool) -> list[Message]:
    coarser = slice(None, None, 4 if quick else 1)
    settings: list[Message] = [
        {"name": f"adaptive {x}", "options": {"policy": f"adaptive:tolerance={x}"}}
        for x in TOLERANCES[coarser]
    ]
    fewer = [n for n in FEWER if n < steps][coarser]
    settings += [{"name": f"fewer {n}", "options": {"steps": n}} for n in fewer]
    for other in () if quick else OTHER_SOLVERS:
        name = "fewer-" + "-".join(other.values())
        steps_too = {"steps": OTHER_STEPS, **other}
        settings.append({"name": f"{name} {OTHER_STEPS}", "options": steps_too})
    return settings


def _measure_curves(findings: Findings, steps: int, *, quick: bool) -> None:
    found = trace(_settings(steps, quick=quick), steps, quick=quick, reference=not quick)
    if not findings.gate.merge(found["gate"]):
        return
    curves, figures = points_of(found["rows"]), findings.figures
    figures[f"region_speedup_{steps}"] = _speedup(curves["adaptive"])
    fewer = [p for name, points in curves.items() if name.startswith("fewer") for p in points]
    figures[f"region_lead_fewer_steps_{steps}"] = lead(curves["adaptive"], fewer, LEAD_DB)
    for against, what in (("psnr", "dense"), ("reference", "converged")):
        if what == "converged" and quick:
            continue
        for points in points_of(found["rows"], against).values():
            for p in points:
                findings.rows.append({"what": f"{steps} steps, to {what}", **p.row()})
    if not quick:
        converged = points_of(found["rows"], "reference")
        rivals = [p for name, ps in converged.items() if name.startswith("fewer") for p in ps]
        figures[f"region_lead_fewer_steps_converged_{steps}"] = lead(
            converged["adaptive"], rivals, LEAD_DB
        )


def _measure_promise(findings: Findings, *, quick: bool) -> None:
    settings = [{"name": "quality", "options": {"quality": MIN_QUALITY}}]
    decibels, shares = [], []
    for first_seed in PROMISED_SEEDS[: 1 if quick else None]:
        found = trace(settings, STEPS[0], quick=quick, first_seed=first_seed)
        if not findings.gate.merge(found["gate"]):
            return
        (promised,) = points_of(found["rows"])["quality"]
        findings.rows.append({"what": f"{STEPS[0]} steps, seed {first_seed}", **promised.row()})
        decibels += promised.psnr
        shares += promised.share
    floor, figures = floor_db(MIN_QUALITY), findings.figures
    figures["min_quality_honoured"] = statistics.fmean(x >= floor for x in decibels)
    figures["min_quality_speedup_28db"] = 1 / statistics.fmean(shares)


def _speedup(points: Sequence[Point]) -> float | None:
    """Of the cheapest setting that is near enough; none is interpolated."""
    enough = [
        1 / p.share_mean
        for p in points
        if p.mean >= MEAN_DB and p.low >= LOW_DB and p.foreground_mean >= FOREGROUND_DB
    ]
    return max(enough, default=None)


def _measure_overhead(findings: Findings, key: str, policy: str, *, quick: bool) -> None:
    question = {"model": "default", "policy": policy, "pairs": OVERHEAD_PAIRS[quick]}
    found = run_child("musiva.perf.benches.all_computed", question, threads=1)
    findings.figures[f"{key}_overhead"] = found["row"]["upper"] - 1
    if key == "all_active":
        findings.figures["all_active_bytes_equal"] = float(found["equal"])
        findings.gate.check("all_active_bytes_equal", found["equal"], holds=found["equal"])
    findings.rows.append({"what": policy.rpartition("/")[2], **found["row"]})
