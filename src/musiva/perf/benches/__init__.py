"""The benches by name, each a module with `KEYS`, the keys of its figures, and `measure(quick) ->
Findings`.
"""

from __future__ import annotations

from musiva.perf.benches.base import BENCHES, Findings, run_bench

__all__ = ["BENCHES", "Findings", "run_bench"]
