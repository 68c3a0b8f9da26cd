"""Bench `captured-speed`: captured models against diffusers' eager classes, against a PixArt that
was written by hand, and packs of some tiles against dense ones.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from musiva.perf.benches.base import Findings
from musiva.perf.child import Message, run_child

__all__ = ["DENSE", "KEYS", "SKIPPED", "measure"]

DENSE = ("sd3", "flux", "qwen_image", "wan", "latte")
SKIPPED = ("sd3", "flux", "wan", "latte")
TOKENS = (256, 1024)
# What was written by hand, where a bench is run in the root of a checkout; else its figure is none.
ORACLE = Path("tests/contract/pixart")
# Pairs of a long run, by tokens, and of a quick one.
PAIRS, QUICK_PAIRS = {256: 30, 1024: 12}, 2
KEYS = (
    "captured_over_handwritten_pixart",
    *(f"dense_time_ratio_{name}" for name in DENSE),
    *(f"skip_pack_speedup_{name}" for name in SKIPPED),
)


def measure(*, quick: bool) -> Findings:
    """Of every figure the worst case counts, over numbers of threads and of tokens."""
    findings = Findings()
    most = min(2, os.cpu_count() or 1)
    for threads in [most] if quick else sorted({1, most}):
        for tokens in TOKENS[:1] if quick else TOKENS:
            own = {"tokens": tokens, "pairs": QUICK_PAIRS if quick else PAIRS[tokens]}
            if ORACLE.is_dir():
                question = {"model": "pixart", "rival": "handwritten", **own}
                _enter(findings, KEYS[0], "captured_dense", question, threads, max)
            for name in DENSE:
                question = {"model": name, "rival": "diffusers", **own}
                key = f"dense_time_ratio_{name}"
                _enter(findings, key, "captured_dense", question, threads, max)
        tokens = TOKENS[-1]
        for name in SKIPPED:
            pairs = QUICK_PAIRS if quick else PAIRS[tokens]
            question = {"model": name, "tokens": tokens, "pairs": pairs}
            key = f"skip_pack_speedup_{name}"
            _enter(findings, key, "captured_packed", question, threads, min)
    return findings


def _enter(
    findings: Findings,
    key: str,
    module: str,
    question: Message,
    threads: int,
    worse: Callable[[float, float], float],
) -> None:
    found = run_child(f"musiva.perf.benches.{module}", question, threads=threads)
    if not findings.gate.merge(found["gate"]):
        return
    row = found["row"]
    print(f"{key}: {row['ratio']:.3f} ({row['tokens']} tokens, {threads} threads)", file=sys.stderr)
    findings.rows.append(row)
    findings.figures[key] = worse(row["ratio"], findings.figures.get(key) or row["ratio"])
