"""Ranks as threads of one process: to try parallel forms without processes, and to look into all of
them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

from torch import Tensor

from musiva.comm.group import Group, Shape, summed

__all__ = ["ThreadGroup", "in_threads"]


class ThreadGroup:
    """One of several ranks that meet in this process."""

    def __init__(self, rank: int, barrier: Barrier, table: list[Sequence[Tensor]]) -> None:
        self.rank, self.size, self.sent_bytes = rank, barrier.parties, 0
        self._barrier, self._table = barrier, table

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        self._table[self.rank] = parts
        self._barrier.wait()
        received = [several[self.rank].clone() for several in self._table]
        self._barrier.wait()
        found = [tuple(x.shape) for x in received]
        if found != [tuple(shape) for shape in shapes]:
            raise ValueError(f"rank {self.rank} was sent {found} and waits for {list(shapes)}")
        sent = (part.nbytes for i, part in enumerate(parts) if i != self.rank)
        self.sent_bytes += sum(sent)
        return received

    def sum(self, x: Tensor) -> Tensor:
        return summed(self, x)


def in_threads(fn: Callable[..., Any], size: int, *arguments: object) -> list[Any]:
    """fn(group, *arguments) on `size` threads; what each returned. Raises what the first of them
    raises, and ends the others where they wait for it.
    """
    barrier = Barrier(size)
    table: list[Sequence[Tensor]] = [()] * size

    def work(rank: int) -> Any:
        group: Group = ThreadGroup(rank, barrier, table)
        try:
            return fn(group, *arguments)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(work, rank) for rank in range(size)]
        errors = [error for one in futures if (error := one.exception()) is not None]
    first = next((one for one in errors if not isinstance(one, BrokenBarrierError)), None)
    if errors:
        raise first or errors[0]
    return [one.result() for one in futures]
