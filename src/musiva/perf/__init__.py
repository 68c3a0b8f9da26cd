"""Measuring: paired timings, correctness gates before speeds, and results that say what they were
measured on.
"""

from __future__ import annotations

from musiva.perf.measure import Comparison, check_load, compare
from musiva.perf.report import Gate, Report, append_result, environment

__all__ = ["Comparison", "Gate", "Report", "append_result", "check_load", "compare", "environment"]
