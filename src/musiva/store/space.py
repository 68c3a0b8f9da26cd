"""Which bytes of an arena are free, and pages cut out of them. No torch here.

Page p of `page_bytes` bytes is the range from p * page_bytes on, whatever lies around it: pages of
one size are an array over the whole arena, and pages of other sizes keep clear of each other as
ranges.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, pairwise

__all__ = ["Extent", "Range", "Space", "byte_ranges"]

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Extent:
    """What is asked for: `num_pages` pages of `page_bytes` bytes."""

    num_pages: int
    page_bytes: int

    @property
    def num_bytes(self) -> int:
        return self.num_pages * self.page_bytes


def byte_ranges(pages: Sequence[int], page_bytes: int) -> Iterator[Range]:
    """What rising page numbers cover, as (start, stop) with neighbours joined."""
    for _, run in groupby(enumerate(pages), lambda numbered: numbered[1] - numbered[0]):
        numbers = [page for _, page in run]
        yield numbers[0] * page_bytes, (numbers[-1] + 1) * page_bytes


class Space:
    """An arena of `size` bytes, all of them free at first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[Range] = [(0, size)]

    def copy(self) -> Space:
        """One that can be taken from without changing this one."""
        other = Space(self.size)
        other._free = self._free.copy()
        return other

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The free ranges as (start, stop), rising; no two touch."""
        return tuple(self._free)

    @property
    def num_free(self) -> int:
        """Free bytes."""
        return sum(stop - start for start, stop in self._free)

    def take(self, extent: Extent) -> tuple[int, ...] | None:
        """Page numbers, rising: the first consecutive ones or, where there are none, the first of
        all. None, and nothing is taken, if there are too few.
        """
        pages = self._consecutive(extent) or self._scattered(extent)
        if pages is not None:
            self.claim(pages, extent.page_bytes)
        return pages

    def claim(self, pages: Sequence[int], page_bytes: int) -> None:
        """Take these pages, which are free."""
        for start, stop in byte_ranges(pages, page_bytes):
            at = bisect_right(self._free, (start, self.size)) - 1
            first, last = self._free[at]
            assert first <= start < stop <= last, f"bytes {start} to {stop} are not free"
            parts = ((first, start), (stop, last))
            self._free[at : at + 1] = [part for part in parts if part[0] < part[1]]

    def give(self, pages: Sequence[int], page_bytes: int) -> None:
        """Free these pages, which are taken."""
        for start, stop in byte_ranges(pages, page_bytes):
            low = high = bisect_left(self._free, (start, stop))
            if low > 0 and self._free[low - 1][1] >= start:
                low -= 1
                start, before = self._free[low][0], start
                assert self._free[low][1] == before, f"bytes from {before} on were free already"
            if high < len(self._free) and self._free[high][0] <= stop:
                stop, behind = self._free[high][1], stop
                assert self._free[high][0] == behind, f"bytes up to {behind} were free already"
                high += 1
            self._free[low:high] = [(start, stop)]

    def check(self, taken: Iterable[tuple[int, int, str]]) -> None:
        """Raise AssertionError unless each byte is free or in just one of these ranges, (start,
        stop, whose).
        """
        for (_, stop), (start, _) in pairwise(self._free):
            assert stop < start, f"free ranges meet at byte {start}"
        end, last = 0, "no one"
        for start, stop, whose in sorted([*((*r, "no one") for r in self._free), *taken]):
            assert start < stop, f"an empty range of {whose} at byte {start}"
            assert start >= end, f"bytes from {start} on belong to {last} and to {whose}"
            assert start == end, f"bytes {end} to {start} are lost"
            end, last = stop, whose
        assert end == self.size, f"the ranges end at {end}, the arena at {self.size}"

    def _consecutive(self, extent: Extent) -> tuple[int, ...] | None:
        for pages in self._pages(extent.page_bytes):
            if len(pages) >= extent.num_pages:
                return tuple(pages[: extent.num_pages])
        return None

    def _scattered(self, extent: Extent) -> tuple[int, ...] | None:
        every = (page for pages in self._pages(extent.page_bytes) for page in pages)
        pages = tuple(islice(every, extent.num_pages))
        return pages if len(pages) == extent.num_pages else None

    def _pages(self, page_bytes: int) -> Iterator[range]:
        """The whole pages of each free range."""
        for start, stop in self._free:
            yield range(-(-start // page_bytes), stop // page_bytes)
