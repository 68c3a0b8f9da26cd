"""What every bench is, and how one is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

from musiva.core.errors import InvalidInput
from musiva.perf.measure import check_load
from musiva.perf.report import Gate, Report, environment

__all__ = ["BENCHES", "Findings", "run_bench"]

BENCHES: Mapping[str, str] = {
    "capture": "musiva.perf.benches.capture",
    "captured-speed": "musiva.perf.benches.captured_speed",
    "chaos": "musiva.perf.benches.chaos",
    "cluster-cache": "musiva.perf.benches.cluster_cache",
    "fidelity": "musiva.perf.benches.fidelity",
    "generate": "musiva.perf.benches.generate",
    "pack": "musiva.perf.benches.pack",
    "parallel": "musiva.perf.benches.parallel",
    "parity": "musiva.perf.benches.parity",
    "region": "musiva.perf.benches.region",
    "reuse": "musiva.perf.benches.reuse",
    "scale": "musiva.perf.benches.scale",
    "scheduler": "musiva.perf.benches.scheduler",
    "serve": "musiva.perf.benches.serve",
    "server": "musiva.perf.benches.server",
    "store": "musiva.perf.benches.store",
    "studio": "musiva.perf.benches.studio",
    "suite": "musiva.perf.benches.suite",
}


@dataclass(slots=True)
class Findings:
    """figures: None for what this run could not tell."""

    gate: Gate = field(default_factory=Gate)
    figures: dict[str, float | None] = field(default_factory=dict)
    rows: list[Mapping[str, object]] = field(default_factory=list)


def run_bench(name: str, *, quick: bool) -> Report:
    """Raises InvalidInput for an unknown name, and Unavailable on a busy machine or without a
    needed package.
    """
    if name not in BENCHES:
        raise InvalidInput("NAME", name, ", ".join(BENCHES))
    module = import_module(BENCHES[name])
    load = check_load(quick=quick)
    findings: Findings = module.measure(quick=quick)
    figures = {key: findings.figures.get(key) for key in module.KEYS}
    return Report(name, quick, load, findings.gate, figures, findings.rows, environment())
