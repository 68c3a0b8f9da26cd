"""The tier of published pages in the memory of this process.

Those go whose loss costs least: GreedyDual-Size-Frequency (Cherkasova, 1998). A page is worth the
seconds that it saves times how often it was wanted, per byte, on top of what the last page that
went was worth; so one that is not wanted any more goes too, whatever it saves.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from musiva.store.page import Page

__all__ = ["Memory"]


@dataclass(slots=True)
class Kept:
    """worth: what names it in the heap; older places there mean nothing any more."""

    page: Page
    cost: float
    wanted: int
    worth: float


class Memory:
    """Pages by key, of at most `budget_bytes` together. Not thread-safe."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.evictions = 0
        self._kept: dict[str, Kept] = {}
        self._heap: list[tuple[float, str]] = []
        self._floor = 0.0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    @property
    def keys(self) -> list[str]:
        return list(self._kept)

    def get(self, key: str) -> Page | None:
        """The page, which is wanted once more."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        kept.wanted += 1
        self._place(key, kept)
        return kept.page

    def peek(self, key: str) -> Page | None:
        """The page, for somebody else."""
        kept = self._kept.get(key)
        return None if kept is None else kept.page

    def put(self, key: str, page: Page, cost: float) -> list[str]:
        """Keep a page; the keys of those that went for it, which may be itself. cost: seconds that
        it takes to have it again, elsewhere or by computing it.
        """
        if key in self._kept:
            return []
        if page.num_bytes > self.budget_bytes:
            return [key]
        kept = self._kept[key] = Kept(page, cost, 1, 0.0)
        self.used_bytes += page.num_bytes
        self._place(key, kept)
        gone = []
        while self.used_bytes > self.budget_bytes:
            worth, name = heapq.heappop(self._heap)
            if (other := self._kept.get(name)) is None or other.worth != worth:
                continue
            self._floor = worth
            self.drop(name)
            gone.append(name)
        self.evictions += len(gone)
        return gone

    def drop(self, key: str) -> None:
        """Nothing if it is not there."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.used_bytes -= kept.page.num_bytes

    def check_integrity(self) -> None:
        """Raise AssertionError unless bytes and places are those of the pages."""
        held = sum(kept.page.num_bytes for kept in self._kept.values())
        assert held == self.used_bytes <= self.budget_bytes, f"{held} bytes, not {self.used_bytes}"
        places = set(self._heap)
        lost = [key for key, kept in self._kept.items() if (kept.worth, key) not in places]
        assert not lost, f"pages that can never go: {lost}"

    def _place(self, key: str, kept: Kept) -> None:
        kept.worth = self._floor + kept.cost * kept.wanted / max(kept.page.num_bytes, 1)
        heapq.heappush(self._heap, (kept.worth, key))
        if len(self._heap) > 64 + 4 * len(self._kept):
            self._heap = [(one.worth, name) for name, one in self._kept.items()]
            heapq.heapify(self._heap)
