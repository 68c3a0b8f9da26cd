"""Ranks that exchange tensors. Whoever calls knows from layouts alone how much comes from whom, so
that no sizes are sent.

N ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor

from musiva.core.errors import RankLost

__all__ = ["Counting", "Group", "Lone", "Shape", "TorchGroup", "summed"]

Shape = Sequence[int]


class Group(Protocol):
    rank: int
    size: int

    @property
    def sent_bytes(self) -> int:
        """What has left this rank, to others than itself, since it was set to 0; in this group and
        in those that it is split into.
        """
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


@dataclass(slots=True)
class Count:
    sent_bytes: int = 0


class Counting:
    """What counts bytes; a group and those that it is split into do so together."""

    def __init__(self, whole: Counting | None = None) -> None:
        """whole: what was split."""
        self._count: Count = Count() if whole is None else whole._count

    @property
    def sent_bytes(self) -> int:
        return self._count.sent_bytes

    @sent_bytes.setter
    def sent_bytes(self, value: int) -> None:
        self._count.sent_bytes = value


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
        try:
            dist.all_to_all_single(received, sent, counts, sizes, group=self._group)
        except RuntimeError as error:
            raise RankLost(f"rank {self.rank} of {self.size}: {error}") from error
        self.sent_bytes += sum(sizes) - sizes[self.rank]
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
