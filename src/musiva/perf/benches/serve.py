"""Bench `serve`: pictures on time and at their floor, under loads below and far above what the
dense engine can do, against the usual ways to serve, with the same engine.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from musiva.core.env import Env
from musiva.cost import Profile
from musiva.engine import Engine, Pipeline, load_pipeline, shipped_models
from musiva.engine.load import model_directory
from musiva.perf.benches.base import Findings
from musiva.perf.benches.contenders import CONTENDERS, OURS, WHOLE, Contender, contenders
from musiva.perf.benches.diffusers_queue import goodput_over_diffusers
from musiva.perf.benches.held_out import SCENES, SINGLES
from musiva.perf.benches.serve_points import Point, Points, Setting
from musiva.perf.benches.whole_picture import cheapest
from musiva.perf.profile import measure_profile
from musiva.perf.report import environment, source_tree
from musiva.policy import floor_db

__all__ = ["KEYS", "measure"]

KEYS = (
    "goodput_over_edf_dense_1.2",
    "goodput_over_edf_dense_2.0",
    "goodput_over_edf_whole_picture_3.0",
    "goodput_over_edf_whole_picture_4.0",
    "attainment_3.0",
    "attainment_below_rival_points",
    "goodput_over_diffusers_server",
    "simulated_over_measured_goodput_low",
    "simulated_over_measured_goodput_high",
)
LOADS = (0.8, 1.2, 2.0, 3.0, 4.0)
SCALES = (1.5, 4.0)
SIZES = {(64, 64): 4.0, (96, 64): 2.0, (96, 96): 2.0}
# As `region` measures promises.
STEPS = 50
MIN_QUALITY = 60
PROFILE_SECONDS = 40.0
# Dense pictures that are made alone too: packs may not change them.
CHECKED = 40
# A rival is ahead where it is so by more than this.
AHEAD = 0.02
# Who attained less is not run at higher loads, where it can only attain less still.
OVERRUN = 0.25
QUICK_LOADS, QUICK_ARRIVALS, QUICK_PROMPTS = (3.0,), 12, 3
# Those that figures compare.
COMPARED = (OURS, "edf_admission", WHOLE)
FIRST_SEED = 5000
Key = tuple[str, float, float]


def measure(*, quick: bool) -> Findings:
    findings = Findings()
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return findings
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    pipeline = load_pipeline("default")
    setting = Setting(
        prompts=(*SINGLES, *SCENES),
        sizes=SIZES,
        steps=STEPS,
        min_quality=MIN_QUALITY,
        arrivals=QUICK_ARRIVALS if quick else 300,
        loads=QUICK_LOADS if quick else LOADS,
        scales=SCALES[1:] if quick else SCALES,
    )
    cache = _cache() / ("quick" if quick else "long")
    profile = Profile.read(cache / "profile.json")
    if profile is None:
        seconds = PROFILE_SECONDS / (4 if quick else 1)
        profile = measure_profile(pipeline, seconds=seconds, check=False)
        profile.write(cache / "profile.json")
    points = Points(pipeline, profile.cost, setting, cache)
    points.prepare()
    findings.rows.append(
        {
            "what": "dense engine",
            "rate": points.rate,
            "alone": {f"{w}x{h}": x for (w, h), x in points.alone.items()},
        }
    )
    checked = min(CHECKED, setting.arrivals)
    same = points.same_alone(checked)
    if not findings.gate.check("same_bytes_in_packs", same, holds=same == checked):
        return findings
    whole, rows = points.remembered("whole", lambda: _whole_picture(pipeline, quick=quick))
    findings.rows += [*rows, {"what": "whole picture, chosen", "options": dict(whole)}]
    every = contenders(whole) if whole else list(CONTENDERS)
    if quick:
        every = [one for one in every if one.name in COMPARED]
    measured, simulated = _sweep(points, every)
    for found, what in ((measured, "measured"), (simulated, "simulated")):
        findings.rows += [point.row(what) for point in found.values()]
    findings.rows += [
        points.simulated(every[0], load, scale).row("simulated at the pace of the profile")
        for load in setting.loads
        for scale in setting.scales
    ]
    findings.figures |= _figures(measured, simulated, setting)
    findings.figures["goodput_over_diffusers_server"] = goodput_over_diffusers(
        findings, points, every[0], quick=quick
    )
    return findings


def _cache() -> Path:
    """Of what an interrupted run had measured, of this source, on this device."""
    facts = environment()
    told = f"{source_tree()} {facts['device']} {facts['threads']}"
    where = hashlib.sha256(told.encode()).hexdigest()[:16]
    return Env.read().cache_dir / "bench-serve" / where


def _whole_picture(
    pipeline: Pipeline, *, quick: bool
) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The strongest rival's way, on the prompts that ours was calibrated on."""
    prompts = _calibration_prompts(pipeline.name)[: QUICK_PROMPTS if quick else None]
    with Engine(pipeline) as engine:
        found, rows = cheapest(
            engine,
            prompts,
            steps=STEPS,
            size=max(SIZES, key=math.prod),
            floor=floor_db(MIN_QUALITY),
            first_seed=FIRST_SEED,
        )
    return dict(found), [dict(row) for row in rows]


def _calibration_prompts(model: str) -> list[str]:
    path = Path(model_directory(model)) / "calibration" / "prompts.txt"
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _sweep(points: Points, every: Sequence[Contender]) -> tuple[dict[Key, Point], dict[Key, Point]]:
    """All points for real first, then in simulated time; those of no interest in neither."""
    setting = points.setting
    keys = [
        (contender, load, scale)
        for scale in setting.scales
        for load in setting.loads
        for contender in every
    ]
    measured: dict[Key, Point] = {}
    overrun: set[tuple[str, float]] = set()
    for done, (contender, load, scale) in enumerate(keys, 1):
        if (contender.name, scale) in overrun:
            continue
        found = points.measured(contender, load, scale)
        measured[contender.name, load, scale] = found
        _tell(f"{done}/{len(keys)}", found)
        if found.score.attainment < OVERRUN and contender.name not in COMPARED:
            overrun.add((contender.name, scale))
    simulated: dict[Key, Point] = {}
    for contender, load, scale in keys:
        key = contender.name, load, scale
        if key in measured:
            found = points.simulated(contender, load, scale, measured[key].pace)
            simulated[key] = found
            _tell(f"{len(simulated)}/{len(measured)} simulated", found)
    return measured, simulated


def _tell(done: str, point: Point) -> None:
    print(
        f"[{done}] {point.contender}, load {point.load}, deadline {point.scale}: "
        f"attainment {point.score.attainment:.3f}",
        file=sys.stderr,
        flush=True,
    )


def _figures(
    measured: dict[Key, Point], simulated: dict[Key, Point], setting: Setting
) -> dict[str, float | None]:
    """Of two deadlines the lower figure counts."""

    def over(rival: str, load: float) -> float | None:
        found = []
        for scale in setting.scales:
            if (OURS, load, scale) in measured and (rival, load, scale) in measured:
                theirs = measured[rival, load, scale].score.goodput
                found.append(measured[OURS, load, scale].score.goodput / max(theirs, 1e-9))
        return min(found, default=None)

    ahead = sum(
        point.score.attainment > measured[OURS, load, scale].score.attainment + AHEAD
        for (name, load, scale), point in measured.items()
        if name != OURS
    )
    ratios = [
        simulated[key].score.goodput / point.score.goodput
        for key, point in measured.items()
        if point.score.goodput > 0.0
    ]
    reached = measured.get((OURS, 3.0, 4.0))
    return {
        "goodput_over_edf_dense_1.2": over("edf_admission", 1.2),
        "goodput_over_edf_dense_2.0": over("edf_admission", 2.0),
        "goodput_over_edf_whole_picture_3.0": over(WHOLE, 3.0),
        "goodput_over_edf_whole_picture_4.0": over(WHOLE, 4.0),
        "attainment_3.0": None if reached is None else reached.score.attainment,
        "attainment_below_rival_points": float(ahead),
        "simulated_over_measured_goodput_low": min(ratios, default=None),
        "simulated_over_measured_goodput_high": max(ratios, default=None),
    }
