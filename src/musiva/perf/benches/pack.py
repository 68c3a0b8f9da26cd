"""Bench `pack`: requests of mixed policies, sizes and progress together against one by one."""

from __future__ import annotations

import os

from musiva.perf.benches.base import Findings
from musiva.perf.child import run_child

__all__ = ["KEYS", "measure"]

KEYS = ("pack_time_ratio", "gpu_dense_ratio_compiled", "gpu_pack_gain_1024")
# In a long run and in a quick one.
PAIRS = (16, 2)


def measure(*, quick: bool) -> Findings:
    """Of both numbers of threads the worse counts. What only a GPU can tell is null."""
    findings, ratios = Findings(), []
    for threads in sorted({1, min(2, os.cpu_count() or 1)}):
        question = {"model": "default", "pairs": PAIRS[quick]}
        found = run_child("musiva.perf.benches.pack_mixed", question, threads=threads)
        if findings.gate.merge(found["gate"]):
            findings.rows.append(found["row"])
            ratios.append(found["row"]["ratio"])
    findings.figures["pack_time_ratio"] = max(ratios, default=None)
    return findings
