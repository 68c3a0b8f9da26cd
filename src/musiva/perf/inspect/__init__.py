"""Where the compute of a picture went: it is made again, beside its dense run, and both are
compared evaluation by evaluation and tile by tile.
"""

from __future__ import annotations

from musiva.perf.inspect.chart import draw
from musiva.perf.inspect.findings import Findings, compare
from musiva.perf.inspect.record import Evaluation, Run, follow

__all__ = ["Evaluation", "Findings", "Run", "compare", "draw", "follow"]
