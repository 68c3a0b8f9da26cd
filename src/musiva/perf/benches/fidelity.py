"""Bench `fidelity`: does the default model draw what it is asked for?

The examiner is the recipe's (`recipes/emoji_exam.py`), which knows the pictures the model learnt
from; so this bench runs in a checkout, and fetches the emoji by npm unless they are there.
"""

from __future__ import annotations

import os

from musiva.core.errors import Unavailable
from musiva.perf.benches.base import Findings
from musiva.perf.child import run_child
from musiva.perf.report import checkout

__all__ = ["KEYS", "measure"]

KEYS = (
    "prompt_fidelity",
    "scene_fidelity",
    "held_out_fidelity",
    "held_out_pairs",
    "held_out_tones",
    "dense_convergence_db",
)
# Questions of each paper in a quick run; a long one asks all.
QUICK = {"singles": 60, "scenes": 24, "pairs": 12, "tones": 12}


def measure(*, quick: bool) -> Findings:
    """Shares of emoji that are the nearest at their place. `held_out_fidelity` is over both kinds
    of compositions that training never showed.
    """
    root = checkout()
    if root is None or not (root / "recipes" / "emoji_exam.py").is_file():
        raise Unavailable("bench fidelity needs a checkout of Musiva, for its recipes/")
    findings = Findings()
    threads = min(2, os.cpu_count() or 1)
    question = {
        "model": "default",
        "exam": str(root / "recipes" / "emoji_exam.py"),
        "data": str(root / "data" / "npm"),
        "counts": QUICK if quick else {},
        "seed": 0,
    }
    found = run_child("musiva.perf.benches.examination", question, threads=threads)
    if not findings.gate.merge(found["gate"]):
        return findings
    rows = {row["paper"]: row for row in found["rows"]}
    findings.rows.extend(found["rows"])
    findings.figures["prompt_fidelity"] = rows["singles"]["share"]
    findings.figures["scene_fidelity"] = rows["scenes"]["share"]
    findings.figures["held_out_pairs"] = rows["pairs"]["share"]
    findings.figures["held_out_tones"] = rows["tones"]["share"]
    right = sum(rows[paper]["right"] for paper in ("pairs", "tones"))
    asked = sum(rows[paper]["asked"] for paper in ("pairs", "tones"))
    findings.figures["held_out_fidelity"] = right / asked
    question = {"model": "default", "prompts": 4 if quick else 16, "repeats": 1}
    found = run_child("musiva.perf.benches.pictures", question, threads=threads)
    if findings.gate.merge(found["gate"]):
        findings.figures["dense_convergence_db"] = found["convergence_db"]
        findings.rows.extend(found["rows"])
    return findings
