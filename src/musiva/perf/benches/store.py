"""Bench `store`: requests that want to keep four times what the store may hold."""

from __future__ import annotations

import os

from musiva.perf.benches.base import Findings
from musiva.perf.child import run_child

__all__ = ["KEYS", "measure"]

KEYS = ("store_budget_exceeded", "store_4x_over_correct")
# In a long run and in a quick one.
REQUESTS = (24, 8)
ROUNDS = (100, 20)


def measure(*, quick: bool) -> Findings:
    """`store_budget_exceeded`: bytes above the budget that were ever in use.
    `store_4x_over_correct`: share of pictures that are those of their journals, replayed with room
    for everything.
    """
    findings, threads = Findings(), min(2, os.cpu_count() or 1)
    question = {"model": "default", "requests": REQUESTS[quick], "rounds": ROUNDS[quick]}
    found = run_child("musiva.perf.benches.store_pressed", question, threads=threads)
    if findings.gate.merge(found["gate"]):
        findings.rows.extend(found["rows"])
        findings.figures["store_budget_exceeded"] = found["exceeded"]
        findings.figures["store_4x_over_correct"] = found["correct"]
    return findings
