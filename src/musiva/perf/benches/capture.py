"""Bench `capture`: every transformer class of diffusers, small, captured, packed and tiled."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from musiva.models.captured import captured_from, signature_of
from musiva.perf.benches.base import Findings
from musiva.perf.captures import Outcome, Trial, examine
from musiva.perf.catalog import ENTRIES, EXCLUDED, Entry, build
from musiva.perf.child import run_child
from musiva.perf.mutations import MODELS, mutants
from musiva.perf.rule_cases import CASES, cases_of, violations
from musiva.perf.small_clips import CLIPS, largest_clip_error
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
CACHE = "MUSIVA_CACHE_DIR"


def measure(*, quick: bool) -> Findings:
    """`classes_*`: shares of those that were tried. `rules_probed`: share of the rules that were
    held against experiments on random operands; `rule_violations`: experiments that they got wrong.
    `first_step_seconds_cached`: the slowest of QUICK.
    """
    findings = Findings()
    missing = sorted(_of_diffusers() - {one.name for one in (*ENTRIES, *EXCLUDED)})
    if not findings.gate.check("classes_not_listed", missing, holds=not missing):
        return findings
    threads = min(2, os.cpu_count() or 1)
    torch.set_num_threads(threads)
    entries = [one for one in ENTRIES if not quick or one.name in QUICK]
    with _cache_of_its_own():
        outcomes = [_examined(entry, i, len(entries)) for i, entry in enumerate(entries, 1)]
        findings.rows += [outcome.row() for outcome in outcomes]
        first_step = _first_step(findings, threads)
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
        "first_step_seconds_cached": first_step,
    }
    tried = _mutants(MUTANTS[quick], MODELS[:2] if quick else MODELS)
    findings.rows += tried
    findings.figures["mutations_killed"] = sum(bool(one["killed"]) for one in tried) / len(tried)
    with TemporaryDirectory() as folder:
        for name in SMALL:
            error = largest_error(name, Path(folder) / name)
            findings.figures[f"pipeline_max_abs_error_{name}"] = error
        for name in set(CLIPS) & set(PIPELINES):
            error = largest_clip_error(name, Path(folder) / name)
            findings.figures[f"pipeline_max_abs_error_{name}"] = error
    return findings


def _examined(entry: Entry, i: int, count: int) -> Outcome:
    outcome = examine(entry.name, partial(build, entry))
    held = zip("cpt", (outcome.captured, outcome.packed, outcome.tiled), strict=True)
    marks = "".join(letter if one else "-" for letter, one in held)
    print(f"[{i}/{count}] {marks} {entry.name} {outcome.failed}", file=sys.stderr)
    return outcome


def _first_step(findings: Findings, threads: int) -> float:
    """Seconds of the slowest, in a process that finds all captures on disk; outputs have to be
    those of the process before, to the byte.
    """
    module, question = "musiva.perf.benches.first_step", {"names": QUICK}
    before, after = (run_child(module, question, threads=threads)["rows"] for _ in range(2))
    differing = [a["class"] for a, b in zip(before, after, strict=True) if not _is_kept(a, b)]
    findings.gate.check("captures_not_kept", differing, holds=not differing)
    findings.rows += after
    return max(row["seconds"] for row in after)


def _is_kept(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    return after["from_cache"] is True and before["outputs"] == after["outputs"]


@contextmanager
def _cache_of_its_own() -> Iterator[None]:
    """For this process and its children."""
    before = os.environ.get(CACHE)
    with TemporaryDirectory(prefix="musiva-capture-") as folder:
        os.environ[CACHE] = folder
        try:
            yield
        finally:
            os.environ.pop(CACHE)
            os.environ.update({} if before is None else {CACHE: before})


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
