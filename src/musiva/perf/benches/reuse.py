"""Bench `reuse`: the policy `adaptive` against every other one, ours and other libraries'."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from musiva.engine import shipped_models
from musiva.perf.benches.base import Findings
from musiva.perf.benches.curves import Point, lead
from musiva.perf.benches.region import FIRST_SEED, LEAD_DB, STEPS, points_of, prompts_of, trace
from musiva.perf.benches.rivals import SWEEPS, measure_rivals
from musiva.perf.child import Message

__all__ = ["KEYS", "measure"]

KEYS = ("region_lead_best_rival", "region_lead_best_rival_scenes")
POLICIES: Mapping[str, Sequence[str]] = {
    "adaptive": [f"tolerance={x}" for x in (0.2, 0.165, 0.14, 0.12)],
    "adaptive_tiles": [f"tolerance={x}" for x in (0.165, 0.14, 0.12)],
    "interval": [
        f"interval={n},warmup={w},order={o}"
        for o, w, every in ((1, 3, (4, 5, 7)), (0, 1, (3, 4, 6)))
        for n in every
    ],
    "first_block": [
        *(f"threshold={x},max_held=4" for x in (0.1, 0.15)),
        *(f"threshold={x},max_held=9" for x in (0.2, 0.3)),
    ],
    "tea_cache": [
        "threshold=0.2,max_held=4",
        *(f"threshold={x},max_held=9" for x in (0.3, 0.5, 0.8)),
    ],
    "ras": [f"varied={v},share={s},interval=5,order={v}" for v, s in ((0, 0.5), (1, 0.25))],
    "refine": [f"interval={n},warmup=3,share={s}" for n, s in ((4, 0.5), (6, 0.25), (6, 0.5))],
}
# Those of other libraries run on a part of the prompts: each is a pipeline of its own.
RIVAL_PROMPTS = 12


def measure(*, quick: bool) -> Findings:
    """The lowest lead over numbers of steps and decibels counts."""
    findings = Findings()
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return findings
    leads: dict[str, list[float | None]] = {key: [] for key in KEYS}
    for steps in STEPS[-1:] if quick else STEPS:
        settings = _settings(quick=quick)
        found = trace(settings, steps, quick=quick)
        if not findings.gate.merge(found["gate"]):
            return findings
        curves = points_of(found["rows"])
        ours, scenes = curves.pop("adaptive"), prompts_of(quick=quick)[1]
        del curves["dense"]
        for points in [ours, *curves.values()]:
            for point in points:
                findings.rows.append({"what": f"{steps} steps", **point.row()})
        del curves["adaptive_tiles"]  # ours too
        for points in curves.values():
            leads[KEYS[0]].append(lead(ours, points, LEAD_DB))
            own, theirs = ([p.part(scenes) for p in some] for some in (ours, points))
            leads[KEYS[1]].append(lead(own, theirs, LEAD_DB))
        _add_libraries(findings, leads, ours, steps, quick=quick)
    for key, found in leads.items():
        # One that a rival's curve does not reach at all is no lead that could be told.
        findings.figures[key] = min((x for x in found if x is not None), default=None)
    return findings


def _settings(*, quick: bool) -> list[Message]:
    return [
        {"name": f"{policy} {fields}", "options": {"policy": f"{policy}:{fields}"}}
        for policy, all_fields in POLICIES.items()
        for fields in all_fields[:: 3 if quick else 1]
    ]


def _add_libraries(
    findings: Findings,
    leads: Mapping[str, list[float | None]],
    ours: Sequence[Point],
    steps: int,
    *,
    quick: bool,
) -> None:
    prompts, scenes = prompts_of(quick=quick)
    count = min(len(prompts), RIVAL_PROMPTS)
    sweeps = {name: settings[:: 4 if quick else 1] for name, settings in SWEEPS.items()}
    found = measure_rivals(
        prompts[:count],
        steps=steps,
        size=(128, 128),
        threads=min(2, os.cpu_count() or 1),
        rivals=sweeps,
        first_seed=FIRST_SEED,
    )
    if not findings.gate.merge(found["gate"]):
        return
    mine = [p.part(range(count)) for p in ours]
    parts = {KEYS[0]: range(count), KEYS[1]: [i for i in scenes if i < count]}
    curves: dict[str, list[Point]] = {}
    for row in found["rows"]:
        what = {"what": f"{steps} steps, another library"}
        if "refused" in row:
            findings.rows.append({**what, **row})
            continue
        point = _point(row)
        curves.setdefault(row["rival"], []).append(point)
        findings.rows.append({**what, **point.row()})
    for points in curves.values():
        for key, part in parts.items():
            leads[key].append(
                lead([p.part(part) for p in mine], [p.part(part) for p in points], LEAD_DB)
            )


def _point(row: Message) -> Point:
    count = len(row["psnr"])
    shares = tuple(1 / x for x in row["speedup"])
    computed = (row["computed_share"] or 0.0,) * count
    columns = (tuple(row["psnr"]), tuple(row["foreground"]), shares, computed)
    return Point(row["rival"], str(row["setting"]), *columns)
