"""Cores that workers of a node share: the more of them compute, the slower each does."""

from __future__ import annotations

from collections.abc import Sequence

from musiva.perf.scale.cluster import Cluster
from musiva.perf.scale.worker import SimulatedWorker

__all__ = ["Cores"]


class Cores:
    """Who computes on which node. Both methods return those whose steps end at other times now than
    it seemed before.
    """

    def __init__(self, cluster: Cluster, degree: int) -> None:
        self._cluster, self._degree = cluster, degree
        self._at: list[dict[int, SimulatedWorker]] = [{} for _ in range(cluster.nodes)]

    def begin(self, worker: SimulatedWorker, now: float) -> Sequence[SimulatedWorker]:
        """A step of a worker, `now`."""
        if not self._cluster.is_shared:
            return [worker]
        for node in self._nodes(worker):
            self._at[node][worker.number] = worker
        return [worker, *(one for one in self._paced(worker, now) if one is not worker)]

    def end(self, worker: SimulatedWorker, now: float) -> Sequence[SimulatedWorker]:
        if not self._cluster.is_shared:
            return []
        for node in self._nodes(worker):
            del self._at[node][worker.number]
        return self._paced(worker, now)

    def _paced(self, changed: SimulatedWorker, now: float) -> list[SimulatedWorker]:
        """Give all beside a worker the speed that they have now; those that had another one."""
        beside = {n: one for node in self._nodes(changed) for n, one in self._at[node].items()}
        found = []
        for one in beside.values():
            running = one.running
            assert running is not None
            speed = min(self._speed(node) for node in self._nodes(one))
            if speed != running.speed:
                running.left -= (now - running.since) * running.speed
                running.taken += now - running.since
                running.since, running.speed = now, speed
                found.append(one)
        return found

    def _speed(self, node: int) -> float:
        ranks = len(self._at[node]) * self._cluster.ranks_on(self._degree)
        return self._cluster.speed(ranks)

    def _nodes(self, worker: SimulatedWorker) -> Sequence[int]:
        return self._cluster.nodes_of(worker.number, self._degree)
