"""Load: traces of requests with times, run against a loop in real or in simulated time, and how
many pictures were on time and good enough.
"""

from __future__ import annotations

from musiva.perf.traffic.clock import RealClock, VirtualClock
from musiva.perf.traffic.drive import Fate, drive
from musiva.perf.traffic.pace import Pace
from musiva.perf.traffic.score import Score, score
from musiva.perf.traffic.simulate import SimulatedExecutor, simulate
from musiva.perf.traffic.trace import (
    SHAPES,
    Asked,
    Mix,
    make_trace,
    read_trace,
    scaled,
    write_trace,
)
from musiva.perf.traffic.wanted import Wanted

__all__ = [
    "SHAPES",
    "Asked",
    "Fate",
    "Mix",
    "Pace",
    "RealClock",
    "Score",
    "SimulatedExecutor",
    "VirtualClock",
    "Wanted",
    "drive",
    "make_trace",
    "read_trace",
    "scaled",
    "score",
    "simulate",
    "write_trace",
]
