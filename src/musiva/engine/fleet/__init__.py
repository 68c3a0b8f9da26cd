"""Workers that make the pictures of one front: how they are started, what they are told, who gets
which request, and what becomes of it when one of them is lost.
"""

from __future__ import annotations

from musiva.engine.fleet.cluster import RayCluster
from musiva.engine.fleet.fleet import Fleet
from musiva.engine.fleet.launcher import Processes, Threads
from musiva.engine.fleet.roster import Workers

__all__ = ["Fleet", "Processes", "RayCluster", "Threads", "Workers"]
