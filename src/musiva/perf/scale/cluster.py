"""Machines and what lies between them, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from musiva.core.errors import InvalidInput

__all__ = ["Cluster", "Link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """bandwidth: bytes a second, out of one end. latency: seconds until the first of them is there.

    Raises InvalidInput.
    """

    bandwidth: float = math.inf
    latency: float = 0.0

    def __post_init__(self) -> None:
        if not self.bandwidth > 0.0:
            raise InvalidInput("bandwidth", self.bandwidth, "bytes a second, above 0")
        if not 0.0 <= self.latency < math.inf:
            raise InvalidInput("latency", self.latency, "seconds, from 0")

    def seconds(self, num_bytes: float, messages: int = 1) -> float:
        """Of so many bytes in so many messages, one after the other."""
        return messages * self.latency + num_bytes / self.bandwidth


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """nodes: machines. devices: that each has for ranks. rate: of a device, times that of the one
    that the cost model was measured on. cores: of a node, which the ranks that compute share, one
    each; infinitely many where a rank has its device to itself. company: how much longer a rank
    takes, as a share, for each other core that is busy. inside: out of a device to the others of
    its node. between: out of a node, for all of its devices together. front: between whoever takes
    requests and a worker. placing: seconds that a request takes there. step: seconds that a worker
    takes for a step beside what the cost model says.

    Raises InvalidInput.
    """

    nodes: int = 1
    devices: int = 1
    rate: float = 1.0
    cores: float = math.inf
    company: float = 0.0
    inside: Link = field(default_factory=Link)
    between: Link = field(default_factory=Link)
    front: Link = field(default_factory=Link)
    placing: float = 0.0
    step: float = 0.0

    def __post_init__(self) -> None:
        for name in ("nodes", "devices"):
            if getattr(self, name) < 1:
                raise InvalidInput(name, getattr(self, name), "a whole number from 1")
        if not 0.0 < self.rate < math.inf:
            raise InvalidInput("rate", self.rate, "a number above 0")
        if not self.cores >= 1.0:
            raise InvalidInput("cores", self.cores, "a number from 1")
        for name in ("company", "placing", "step"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise InvalidInput(name, getattr(self, name), "a number from 0")

    @property
    def num_devices(self) -> int:
        return self.nodes * self.devices

    @property
    def is_shared(self) -> bool:
        """Whether ranks of a node slow each other down."""
        return self.cores < math.inf or self.company > 0.0

    def check(self, count: int, degree: int) -> None:
        """Raises InvalidInput for workers that do not fit, or whose ranks lie across nodes unless
        they fill these.
        """
        if count * degree > self.num_devices:
            allowed = f"at most {self.num_devices} ranks, the devices that there are"
            raise InvalidInput("workers", f"{count} of {degree} ranks", allowed)
        if self.devices % degree and degree % self.devices:
            allowed = f"what divides {self.devices}, the devices of a node, or a multiple of it"
            raise InvalidInput("degree", degree, allowed)

    def nodes_of(self, number: int, degree: int) -> Sequence[int]:
        """Those that the ranks of a worker are on."""
        first, last = number * degree, (number + 1) * degree - 1
        return range(first // self.devices, last // self.devices + 1)

    def ranks_on(self, degree: int) -> int:
        """How many of a worker's ranks are on each of its nodes."""
        return min(degree, self.devices)

    def speed(self, busy: int) -> float:
        """Of each of so many ranks that compute at a time on a node, as a share of the speed that
        it has alone.
        """
        share = min(1.0, self.cores / busy)
        return share / (1.0 + self.company * (min(busy, self.cores) - 1))

    def exchange(self, degree: int, num_bytes: float, messages: int) -> float:
        """Seconds in which each rank of a worker sends so many bytes to all others together, each
        of them as much, in so many exchanges one after the other.
        """
        if degree == 1:
            return 0.0
        near = self.ranks_on(degree)
        to_near = num_bytes * (near - 1) / (degree - 1)
        seconds = self.inside.seconds(to_near, messages)
        if near == degree:
            return seconds
        out = near * num_bytes * (degree - near) / (degree - 1)
        return max(seconds, self.between.seconds(out, messages))
