"""Ranks that exchange tensors. Whoever calls knows from layouts alone how much comes from whom, so
that no sizes are sent.

N ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from musiva.core.errors import RankLost

__all__ = ["Group", "Lone", "Shape", "TorchGroup", "summed"]

Shape = Sequence[int]


class Group(Protocol):
    """sent_bytes: what has left this rank, to others than itself, since it was set to 0."""

    rank: int
    size: int
    sent_bytes: int

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        """Part i goes to rank i; returns what each rank sent here, of these shapes. All of one
        dtype. Raises RankLost where one does not take part.
        """
        ...

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks, in the order of ranks, so that all have the same bytes."""
        ...


class Lone:
    """One rank."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self.sent_bytes = 0

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        return list(parts)

    def sum(self, x: Tensor) -> Tensor:
        return x


class TorchGroup:
    """Over `torch.distributed`: gloo between CPUs, NCCL between GPUs."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """group: of the default one's ranks; None: all of them."""
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.sent_bytes = 0

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


def summed(group: Group, x: Tensor) -> Tensor:
    """The sum over all ranks of a group, in their order."""
    return torch.stack(group.exchange([x] * group.size, [x.shape] * group.size)).sum(0)
