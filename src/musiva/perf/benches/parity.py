"""Bench `parity`: our outputs against diffusers', and packed against alone."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from musiva.engine import shipped_models
from musiva.perf.benches.base import Findings
from musiva.perf.child import Message, run_child

__all__ = ["KEYS", "measure"]

KEYS = (
    "parity_max_abs_error",
    "pipeline_max_abs_error",
    "packed_alone_bytes_equal",
    "packed_alone_max_abs_error",
)
DENOISERS = (24, 9)
COMPANIES = (8, 2)
# A picture that is all of one colour would agree with anything.
LEAST_DEVIATION = 0.02
WAYS = ("alone", "packed", "packed backwards")


def measure(*, quick: bool) -> Findings:
    """The figures are the errors themselves; the gate holds if the comparison was a fair one."""
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="musiva-parity-") as directory:
        question = {"directory": directory, "denoisers": DENOISERS[quick]}
        run_child("musiva.perf.benches.parity_reference", question, threads=1)
        threads = sorted({1, min(2, os.cpu_count() or 1)})
        for count in threads:
            found = run_child(
                "musiva.perf.benches.parity_ours", {"directory": directory}, threads=count
            )
            _enter_errors(findings, found, count)
        random_model = str(Path(directory, "pipelines", "0"))
        models = {"random": random_model, **{n: n for n in shipped_models() if n == "default"}}
        equal = [
            not _packed_against_alone(findings, name, model, "cpu", count, COMPANIES[quick])[
                "differing"
            ]
            for name, model in models.items()
            for count in threads
        ]
        # Bytes are promised on a CPU; on a GPU a bound.
        if torch.cuda.is_available():
            findings.figures["packed_alone_max_abs_error"] = max(
                _packed_against_alone(findings, name, model, "cuda", 1, COMPANIES[quick])[
                    "max_abs_error"
                ]
                for name, model in models.items()
            )
    findings.figures["packed_alone_bytes_equal"] = float(all(equal))
    return findings


def _enter_errors(findings: Findings, found: Message, threads: int) -> None:
    denoisers: Sequence[Mapping[str, Any]] = found["denoisers"]
    pipelines: Sequence[Mapping[str, Any]] = found["pipelines"]
    gate, figures = findings.gate, findings.figures
    boxes = [one["what"] for one in (*denoisers, *pipelines) if not one["captured"]]
    gate.check(f"black_boxes_{threads}_threads", boxes, holds=not boxes)
    deviation = min(one["least deviation"] for one in pipelines)
    gate.check("least_deviation", deviation, holds=deviation >= LEAST_DEVIATION)
    worst = max(one[way] for one in denoisers for way in WAYS)
    figures["parity_max_abs_error"] = max(worst, figures.get("parity_max_abs_error") or 0.0)
    worst = max(one["error"] for one in pipelines)
    figures["pipeline_max_abs_error"] = max(worst, figures.get("pipeline_max_abs_error") or 0.0)
    finite = all(value is not None and math.isfinite(value) for value in figures.values())
    gate.check(f"finite_errors_{threads}_threads", finite, holds=finite)
    findings.rows.extend({**one, "threads": threads} for one in (*denoisers, *pipelines))


def _packed_against_alone(
    findings: Findings, name: str, model: str, device: str, threads: int, companies: int
) -> Message:
    """What the child found, which also becomes a row."""
    question = {"model": model, "device": device, "companies": companies}
    found = run_child("musiva.perf.benches.packed_alone", question, threads=threads)
    where = f"{name}_{device}_{threads}_threads"
    findings.gate.check(f"finite_{where}", found["finite"], holds=found["finite"] is True)
    findings.gate.check(f"compared_{where}", found["compared"], holds=found["compared"] > 0)
    findings.rows.append({"what": f"packed against alone, {name} model on {device}", **found})
    return found
