"""Bench `generate`: speed of the dense forward and of whole pictures, and how good the default
steps are.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

from musiva.engine import shipped_models
from musiva.perf.benches.base import Findings
from musiva.perf.child import Message, child_environment, run_child

__all__ = ["KEYS", "measure"]

KEYS = (
    "dense_time_ratio_256",
    "dense_time_ratio_1024",
    "dense_time_ratio_bf16",
    "pack_over_own_alone",
    "dense_convergence_db",
    "help_seconds",
)
# Figure, tokens a sample, dtype, pairs in a long run and in a quick one.
DENSE = (
    ("dense_time_ratio_256", 256, "float32", 60, 6),
    ("dense_time_ratio_1024", 1024, "float32", 24, 3),
    ("dense_time_ratio_bf16", 256, "bfloat16", 60, 6),
    ("dense_time_ratio_bf16", 1024, "bfloat16", 24, 3),
)
PACK_PAIRS = (60, 6)
MAX_DEFAULT_STEPS = 28
HELP = """
import sys
from musiva.cli import main
try:
    main(["--help"])
finally:
    print("torch" in sys.modules)
"""


def measure(*, quick: bool) -> Findings:
    """Of every figure the worst case counts, over numbers of threads and, for bf16, of tokens."""
    findings = Findings()
    threads = sorted({1, min(2, os.cpu_count() or 1)})
    for count in threads:
        for key, tokens, dtype, *pairs in DENSE:
            question = {"tokens": tokens, "dtype": dtype, "pairs": pairs[quick]}
            _enter(findings, key, run_child("musiva.perf.benches.dense", question, threads=count))
        found = run_child("musiva.perf.benches.packed", {"pairs": PACK_PAIRS[quick]}, threads=count)
        _enter(findings, "pack_over_own_alone", found)
    _measure_pictures(findings, quick=quick, threads=threads[-1])
    _measure_help(findings, runs=5 if quick else 21)
    return findings


def _enter(findings: Findings, key: str, found: Message) -> None:
    if findings.gate.merge(found["gate"]):
        row: Mapping[str, float] = found["row"]
        findings.rows.append(row)
        findings.figures[key] = max(row["ratio"], findings.figures.get(key) or 0.0)


def _measure_pictures(findings: Findings, *, quick: bool, threads: int) -> None:
    if "default" not in shipped_models():
        findings.gate.check("default_model", "not shipped", holds=True)
        return
    question = {"model": "default", "prompts": 4 if quick else 16, "repeats": 3 if quick else 9}
    found = run_child("musiva.perf.benches.pictures", question, threads=threads)
    if findings.gate.merge(found["gate"]):
        steps: int = found["steps"]
        findings.gate.check("default_steps", steps, holds=steps <= MAX_DEFAULT_STEPS)
        findings.figures["dense_convergence_db"] = found["convergence_db"]
        findings.rows.extend(found["rows"])


def _measure_help(findings: Findings, *, runs: int) -> None:
    """Wall seconds of a whole `musiva --help`, interpreter included."""
    environment, taken = child_environment(1), []
    loaded = subprocess.run(
        [sys.executable, "-c", HELP], env=environment, capture_output=True, text=True, check=False
    ).stdout.split()
    findings.gate.check(
        "help_without_torch", loaded[-1:] == ["False"], holds=loaded[-1:] == ["False"]
    )
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "musiva.cli", "--help"],
            env=environment,
            capture_output=True,
            check=True,
        )
        taken.append(time.perf_counter() - start)
    findings.figures["help_seconds"] = statistics.median(taken)
