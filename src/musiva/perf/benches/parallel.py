"""Bench `parallel`: several ranks and workers against one: whether they make the same, what they
send, and how much sooner pictures are there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from musiva.core.types import Event, Level
from musiva.engine import Engine, Fleet, Workers, load_pipeline, shipped_models
from musiva.engine.stream import Stream
from musiva.parallel import Form
from musiva.perf.benches.base import Findings
from musiva.perf.benches.parallel_exact import CASES, bytes_over_formula, error_of, trial_of
from musiva.perf.benches.parallel_patch import KEYS as PATCH_KEYS
from musiva.perf.benches.parallel_patch import measure_patches
from musiva.perf.measure import compare

__all__ = ["KEYS", "measure"]

KEYS = (
    "ranks_max_abs_error",
    "bytes_over_formula_ulysses",
    "bytes_over_formula_dsp",
    "bytes_over_formula_dsp_reuse",
    "two_worker_speedup_two_pictures",
    "two_worker_speedup_one_picture",
    *PATCH_KEYS,
)
# Frames of clips of which ranks have whole ones.
UNEVEN, EVEN = 5, 8
# Of prediction, over one rank.
EXACT = 1e-5
# Attention alone mixes tokens in them, so that the formula is of all that they send.
ATTENTIVE = ("PixArtTransformer2DModel", "SD3Transformer2DModel", "WanTransformer3DModel")
PROMPTS = ("a red fox", "a blue whale")
# The largest that the default model makes.
SIZE = (128, 128)
STEPS, PAIRS, QUICK_PAIRS = 12, 20, 2
# Levels of 255 by which a picture of several ranks may differ from that of one.
LEVELS = 2


def measure(*, quick: bool) -> Findings:
    findings = Findings()
    _exactness(findings, quick=quick)
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
    else:
        _speed(findings, quick=quick)
        measure_patches(findings, quick=quick)
    return findings


def _exactness(findings: Findings, *, quick: bool) -> None:
    figures, worst = findings.figures, 0.0
    for case in [case for case in CASES if not quick or case.name == ATTENTIVE[0]]:
        trial = even = trial_of(case.name)
        if case.form == "dynamic":
            # Its class is made for a number of frames.
            trial, even = (trial_of(case.name, video_length=n) for n in (UNEVEN, EVEN))
        for size in case.ranks:
            error = error_of(trial, case.form, size)
            row = {"class": case.name, "form": case.form, "ranks": size, "error": error}
            worst = max(worst, error)
            attentive = case.form == "ulysses" and case.name in ATTENTIVE
            counted = case.form == "dynamic" or attentive
            if counted:
                row["bytes_over_formula"] = over = bytes_over_formula(even, case.form, size)
                key = "dsp" if case.form == "dynamic" else "ulysses"
                _worse(findings, f"bytes_over_formula_{key}", over)
            if case.form == "dynamic":
                reused = bytes_over_formula(even, case.form, size, reuse=True)
                row["bytes_over_formula_reuse"] = reused
                _worse(findings, "bytes_over_formula_dsp_reuse", reused)
            findings.rows.append(row)
            print(f"{case.name}, {case.form}, {size} ranks: {error:.1e}", file=sys.stderr)
    figures["ranks_max_abs_error"] = worst
    findings.gate.check("ranks_max_abs_error", worst, holds=worst <= EXACT)


def _worse(findings: Findings, key: str, value: float) -> None:
    known = findings.figures.get(key)
    findings.figures[key] = value if known is None else max(known, value)


def _speed(findings: Findings, *, quick: bool) -> None:
    pairs = QUICK_PAIRS if quick else PAIRS
    pipeline = load_pipeline("default")

    def fleet(count: int, degree: int, form: Form = "branches") -> Fleet:
        workers = Workers(count=count, degree=degree, form=form, threads=1)
        return Fleet(pipeline, workers, Engine.Config(), model="default")

    with fleet(1, 1) as one:
        with fleet(2, 1) as two:
            prompts = list(PROMPTS)
            shots = [_shot(front, prompts) for front in (two, one)]
            same = all(map(np.array_equal, *(shot() for shot in shots)))
            if findings.gate.check("two_workers_same_bytes", same, holds=same):
                _compare(findings, "two_worker_speedup_two_pictures", *shots, pairs=pairs)
        with fleet(1, 2) as ranked:
            shots = [_shot(front, PROMPTS[:1]) for front in (ranked, one)]
            ours, theirs = (np.asarray(shot()[0], np.int16) for shot in shots)
            levels = int(np.abs(ours - theirs).max())
            if findings.gate.check("two_ranks_levels", levels, holds=levels <= LEVELS):
                _compare(findings, "two_worker_speedup_one_picture", *shots, pairs=pairs)
    with fleet(1, 2, "ulysses") as ranked:
        _compare_degrees(findings, ranked, pairs=pairs)


def _compare_degrees(findings: Findings, ranked: Fleet, *, pairs: int) -> None:
    """Two pictures at once by one worker of two ranks: where load may say that each is computed by
    one of them, and where both are shared.
    """
    free = Level("never"), Level("never", 99)
    apart, shared = (_drawn(ranked, levels) for levels in (free, free[:1]))
    apart()  # what a step takes is known from then on
    alone = [action.alone for event in apart() for action in event.actions]
    share = sum(alone) / len(alone)
    findings.gate.check("evaluations_of_one_rank", share, holds=share > 0.5)
    found = compare(apart, shared, pairs=pairs)
    findings.rows.append(
        {
            "what": "free_degree_speedup_two_pictures",
            "speedup": 1.0 / found.ratio,
            "lower": 1.0 / found.upper,
            "pairs": found.pairs,
            "evaluations_of_one_rank": share,
        }
    )
    print(f"free degree, two pictures: {1.0 / found.ratio:.2f}", file=sys.stderr)


def _drawn(front: Fleet, levels: tuple[Level, ...]) -> Callable[[], list[Event]]:
    def drawn() -> list[Event]:
        asked = [front.request(one, size=SIZE, steps=STEPS, seed=1) for one in PROMPTS]
        streams = [Stream(front, replace(one, levels=levels), None) for one in asked]
        return [event for own in streams for event in own if event.kind == "picture"]

    return drawn


def _shot(front: Fleet, prompts: Sequence[str]) -> Callable[[], list[np.ndarray]]:
    def shot() -> list[np.ndarray]:
        made = front.generate(prompts, size=SIZE, steps=STEPS, seed=1)
        return [np.asarray(picture) for picture in made]

    return shot


def _compare(
    findings: Findings,
    key: str,
    candidate: Callable[[], object],
    baseline: Callable[[], object],
    *,
    pairs: int,
) -> None:
    found = compare(candidate, baseline, pairs=pairs)
    findings.figures[key] = 1.0 / found.ratio
    findings.rows.append(
        {
            "what": key,
            "pairs": found.pairs,
            "lower": 1.0 / found.upper,
            "one_worker_seconds": found.baseline_seconds,
            "two_worker_seconds": found.candidate_seconds,
        }
    )
    print(f"{key}: {1.0 / found.ratio:.2f}", file=sys.stderr)
