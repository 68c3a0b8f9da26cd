"""Many devices in simulated time: fleets whose workers have real step loops, schedulers and
placement, on machines and links that are numbers; held against real fleets, and taken further than
there are machines.
"""

from __future__ import annotations

from musiva.perf.scale.cluster import Cluster, Link
from musiva.perf.scale.fleet import Course, Death, simulate_fleet
from musiva.perf.scale.setting import Sends, Setting

__all__ = ["Cluster", "Course", "Death", "Link", "Sends", "Setting", "simulate_fleet"]
