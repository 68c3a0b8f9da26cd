"""Bench `capture`: every transformer class of diffusers, small, captured, packed and tiled."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from musiva.models.captured import captured_from, signature_of
from musiva.perf.benches.base import Findings
from musiva.perf.captures import Outcome, Trial, examine
from musiva.perf.catalog import ENTRIES, EXCLUDED, build
from musiva.perf.mutations import MODELS, mutants
from musiva.perf.rule_cases import CASES, cases_of, violations
from musiva.perf.small_pipelines import SMALL, largest_error

__all__ = ["KEYS", "PIPELINES", "measure"]

PIPELINES = ("sd3", "flux", "sana", "wan", "qwen_image", "z_image", "latte", "cogvideox")
KEYS = (
    "classes_tried",
    "classes_captured",
    "classes_packed",
    "classes_tiled",
    *(f"pipeline_max_abs_error_{name}" for name in PIPELINES),
    "rules_probed",
    "rule_violations",
    "mutations_killed",
    "capture_seconds_median",
    "first_step_seconds_cached",
)
QUICK = (
    "PixArtTransformer2DModel",
    "SD3Transformer2DModel",
    "FluxTransformer2DModel",
    "WanTransformer3DModel",
    "LatteTransformer3DModel",
)
SEEDS = (20, 3)
MUTANTS = (100, 6)


def measure(*, quick: bool) -> Findings:
    """`classes_*`: shares of those that were tried. `rules_probed`: share of the rules that were
    held against experiments on random operands; `rule_violations`: experiments that they got wrong.
    """
    findings = Findings()
    missing = sorted(_of_diffusers() - {one.name for one in (*ENTRIES, *EXCLUDED)})
    if not findings.gate.check("classes_not_listed", missing, holds=not missing):
        return findings
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    entries = [one for one in ENTRIES if not quick or one.name in QUICK]
    outcomes: list[Outcome] = []
    for i, entry in enumerate(entries, 1):
        outcome = examine(entry.name, partial(build, entry))
        outcomes.append(outcome)
        marks = "".join(
            letter if held else "-"
            for letter, held in zip(
                "cpt", (outcome.captured, outcome.packed, outcome.tiled), strict=True
            )
        )
        print(f"[{i}/{len(entries)}] {marks} {entry.name} {outcome.failed}", file=sys.stderr)
    findings.rows += [outcome.row() for outcome in outcomes]
    count = len(outcomes)
    seconds = [one.seconds for one in outcomes if one.seconds is not None]
    wrong, probed = _probe_rules(SEEDS[quick])
    findings.rows += [{"what": "violation", "rule": name, "said": said} for name, said in wrong]
    findings.figures |= {
        "classes_tried": None if quick else float(count),
        "classes_captured": sum(one.captured for one in outcomes) / count,
        "classes_packed": sum(one.packed for one in outcomes) / count,
        "classes_tiled": sum(one.tiled for one in outcomes) / count,
        "rules_probed": probed,
        "rule_violations": float(len(wrong)),
        "capture_seconds_median": statistics.median(seconds) if seconds else None,
    }
    tried = _mutants(MUTANTS[quick], MODELS[:2] if quick else MODELS)
    findings.rows += tried
    findings.figures["mutations_killed"] = sum(bool(one["killed"]) for one in tried) / len(tried)
    with TemporaryDirectory() as folder:
        for name in SMALL:
            error = largest_error(name, Path(folder) / name)
            findings.figures[f"pipeline_max_abs_error_{name}"] = error
    return findings


def _of_diffusers() -> set[str]:
    """Names of its transformer classes."""
    import diffusers
    from diffusers.models import transformers

    public = {name for name in vars(transformers) if name.endswith(("Model", "Transformer"))}
    return {name for name in public if hasattr(diffusers, name)}


def _mutants(count: int, models: Sequence[str]) -> list[Mapping[str, object]]:
    """What became of wrong rules and wrong rewrites."""
    trials: dict[str, Trial] = {}
    for entry in ENTRIES:
        if entry.name in models:
            module = build(entry)
            trials[entry.name] = Trial(captured_from(module), signature_of(module))
    found: list[Mapping[str, object]] = []
    for mutant in mutants(trials, count):
        found.append({"what": "mutant", **asdict(mutant)})
        marks = "killed" if mutant.killed else "ALIVE"
        print(f"[{len(found)}/{count}] {marks} {mutant.kind}: {mutant.where}", file=sys.stderr)
    return found


def _probe_rules(seeds: int) -> tuple[list[tuple[str, str]], float]:
    """What rules got wrong, and the share of them that was tried at all."""
    from musiva.compiler.rules import RULES

    wrong: list[tuple[str, str]] = []
    tried: set[str] = set()
    for name in CASES:
        for seed in range(seeds):
            for case in cases_of(name, seed):
                said = violations(case)
                if said is not None:
                    tried.add(name)
                    wrong += [(name, one) for one in said]
    return wrong, len(tried) / len(RULES)
