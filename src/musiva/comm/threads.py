"""Ranks as threads of one process: to try parallel forms without processes, and to look into all of
them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

from torch import Tensor

from musiva.comm.group import Shape, summed
from musiva.core.errors import RankLost

__all__ = ["ThreadGroup", "in_threads"]


class ThreadGroup:
    """One of several ranks that meet in this process."""

    def __init__(self, rank: int, barrier: Barrier, table: list[Sequence[Tensor]]) -> None:
        self.rank, self.size, self.sent_bytes = rank, barrier.parties, 0
        self._barrier, self._table = barrier, table

    @classmethod
    def all_of(cls, size: int) -> list[ThreadGroup]:
        """Every rank of a group."""
        barrier, table = Barrier(size), [()] * size
        return [cls(rank, barrier, table) for rank in range(size)]  # type: ignore[arg-type]

    def leave(self) -> None:
        """Whoever waits for this rank, or will, finds it lost."""
        self._barrier.abort()

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        self._table[self.rank] = parts
        try:
            self._barrier.wait()
            received = [several[self.rank].clone() for several in self._table]
            self._barrier.wait()
        except BrokenBarrierError as error:
            raise RankLost(f"rank {self.rank} of {self.size}: another one is gone") from error
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

    def work(group: ThreadGroup) -> Any:
        try:
            return fn(group, *arguments)
        except BaseException:
            group.leave()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(work, group) for group in ThreadGroup.all_of(size)]
        errors = [error for one in futures if (error := one.exception()) is not None]
    first = next((one for one in errors if not isinstance(one, RankLost)), None)
    if errors:
        raise first or errors[0]
    return [one.result() for one in futures]
