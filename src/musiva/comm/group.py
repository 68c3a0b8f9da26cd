"""Ranks that exchange tensors. Whoever calls knows from layouts alone how much comes from whom, so
that no sizes are sent.

N ranks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor

from musiva.comm.meter import Meter
from musiva.core.errors import RankLost

__all__ = ["Counting", "Group", "Lone", "Shape", "TorchGroup", "summed"]

Shape = Sequence[int]


class Group(Protocol):
    """meter: of what it exchanges, together with those that it is split into; its seconds are those
    in which a rank waits, which is for others as for the way. Of GPUs they are those of the start.
    """

    rank: int
    size: int
    meter: Meter

    @property
    def sent_bytes(self) -> int:
        """What has left this rank, to others than itself, since it was set to 0."""
        ...

    @sent_bytes.setter
    def sent_bytes(self, value: int) -> None: ...

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        """Part i goes to rank i; returns what each rank sent here, of these shapes. All of one
        dtype. Raises RankLost where one does not take part.
        """
        ...

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks, in the order of ranks, so that all have the same bytes."""
        ...

    def split(self, count: int) -> Group:
        """This rank's one of `count` groups of the same size, each of ranks in a row, which do not
        wait for each other. Every rank has to call it, and no such group is split again. Raises
        RankLost where one does not.
        """
        ...


class Counting:
    """What counts; a group and those that it is split into do so together."""

    def __init__(self, whole: Counting | None = None) -> None:
        """whole: what was split."""
        self.meter: Meter = Meter() if whole is None else whole.meter

    @property
    def sent_bytes(self) -> int:
        return self.meter.sent_bytes

    @sent_bytes.setter
    def sent_bytes(self, value: int) -> None:
        self.meter.sent_bytes = value


class Lone(Counting):
    """One rank."""

    rank, size = 0, 1

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        return list(parts)

    def sum(self, x: Tensor) -> Tensor:
        return x

    def split(self, count: int) -> Lone:
        assert count == 1
        return self


class TorchGroup(Counting):
    """Over `torch.distributed`: gloo between CPUs, NCCL between GPUs."""

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        *,
        timeout: timedelta | None = None,
        whole: TorchGroup | None = None,
    ) -> None:
        """group: of the default one's ranks; None: all of them. timeout: of the groups that it is
        split into; None: that of torch. whole: what was split.
        """
        super().__init__(whole)
        self._group, self._timeout = group, timeout
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        first = parts[0]
        # As bytes: backends differ in the dtypes that they know.
        sent = torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in parts])
        sizes = [part.numel() * part.element_size() for part in parts]
        counts = [math.prod(shape) * first.element_size() for shape in shapes]
        received = sent.new_empty(sum(counts))
        start = time.perf_counter()
        try:
            dist.all_to_all_single(received, sent, counts, sizes, group=self._group)
        except RuntimeError as error:
            raise RankLost(f"rank {self.rank} of {self.size}: {error}") from error
        own = self.rank
        self.meter.saw(
            sent=sum(sizes) - sizes[own],
            received=sum(counts) - counts[own],
            seconds=time.perf_counter() - start,
        )
        return [
            part.view(first.dtype).view(*shape)
            for part, shape in zip(received.split(counts), shapes, strict=True)
        ]

    def sum(self, x: Tensor) -> Tensor:
        return summed(self, x)

    def split(self, count: int) -> TorchGroup:
        assert self.size % count == 0
        ranks, each = dist.get_process_group_ranks(self._group), self.size // count
        try:
            # Torch wants every rank to make all of them, in one order.
            made = [
                dist.new_group(ranks[first : first + each], timeout=self._timeout)
                for first in range(0, self.size, each)
            ]
        except RuntimeError as error:
            raise RankLost(f"rank {self.rank} of {self.size}: {error}") from error
        own = cast("dist.ProcessGroup", made[self.rank // each])
        return TorchGroup(own, timeout=self._timeout, whole=self)


def summed(group: Group, x: Tensor) -> Tensor:
    """The sum over all ranks of a group, in their order."""
    return torch.stack(group.exchange([x] * group.size, [x.shape] * group.size)).sum(0)
