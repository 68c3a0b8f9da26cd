"""What a store tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Figures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A store at one moment, and what it has done since it was built.

    allocated_bytes: of its arena. used_bytes: of the pages in use. largest_free_bytes: of the
    longest free range; far below what is free, it tells of fragmentation. hits, misses: answers of
    `Store.missing`. reads: of entries. evictions: of owners. refused: reservations. written_bytes:
    as they are kept. site_bytes: of the pages in use, by site.
    """

    budget_bytes: int
    allocated_bytes: int
    used_bytes: int
    largest_free_bytes: int
    pages: int
    owners: int
    hits: int
    misses: int
    reads: int
    evictions: int
    refused: int
    written_bytes: int
    site_bytes: Mapping[str, int]

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - self.used_bytes
