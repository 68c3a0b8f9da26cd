"""Ranks as threads of one process: to try parallel forms without processes, and to look into all of
them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError, Lock
from typing import Any

from torch import Tensor

from musiva.comm.group import Counting, Shape, summed
from musiva.core.errors import RankLost

__all__ = ["ThreadGroup", "in_threads"]


class Meeting:
    """Where ranks meet, and parts of them. table: what each of them has brought."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = Barrier(size)
        self.table: list[Sequence[Tensor]] = [()] * size
        self._lock = Lock()
        self._parts: dict[tuple[int, int], Meeting] = {}

    def part(self, count: int, number: int) -> Meeting:
        """Of one of `count` parts, the same for all who ask; nobody is waited for."""
        with self._lock:
            if (count, number) not in self._parts:
                made = self._parts[count, number] = Meeting(self.size // count)
                if self.barrier.broken:
                    made.end()
            return self._parts[count, number]

    def end(self) -> None:
        """Whoever waits there, or will, finds a rank lost."""
        with self._lock:
            self.barrier.abort()
            for part in self._parts.values():
                part.end()


class ThreadGroup(Counting):
    """One of several ranks that meet in this process."""

    def __init__(self, rank: int, meeting: Meeting, whole: ThreadGroup | None = None) -> None:
        """whole: what was split."""
        super().__init__(whole)
        self.rank, self.size = rank, meeting.size
        self._meeting = meeting

    @classmethod
    def all_of(cls, size: int) -> list[ThreadGroup]:
        """Every rank of a group."""
        meeting = Meeting(size)
        return [cls(rank, meeting) for rank in range(size)]

    def leave(self) -> None:
        """Whoever waits for this rank, or will, finds it lost."""
        self._meeting.end()

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
        barrier, table = self._meeting.barrier, self._meeting.table
        table[self.rank] = parts
        start = time.perf_counter()
        try:
            barrier.wait()
            received = [several[self.rank].clone() for several in table]
            barrier.wait()
        except BrokenBarrierError as error:
            raise RankLost(f"rank {self.rank} of {self.size}: another one is gone") from error
        found = [tuple(x.shape) for x in received]
        if found != [tuple(shape) for shape in shapes]:
            raise ValueError(f"rank {self.rank} was sent {found} and waits for {list(shapes)}")
        sent, came = (
            sum(part.nbytes for i, part in enumerate(several) if i != self.rank)
            for several in (parts, received)
        )
        self.meter.saw(sent=sent, received=came, seconds=time.perf_counter() - start)
        return received

    def sum(self, x: Tensor) -> Tensor:
        return summed(self, x)

    def split(self, count: int) -> ThreadGroup:
        assert self.size % count == 0
        each = self.size // count
        meeting = self._meeting.part(count, self.rank // each)
        return ThreadGroup(self.rank % each, meeting, self)


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
