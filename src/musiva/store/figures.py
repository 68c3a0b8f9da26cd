"""What a store tells about itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

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

    def done(self) -> Figures:
        """What it has done, as of a store that is no more."""
        nothing = {"budget_bytes": 0, "allocated_bytes": 0, "used_bytes": 0}
        return replace(self, **nothing, largest_free_bytes=0, pages=0, owners=0, site_bytes={})

    @staticmethod
    def total(several: Sequence[Figures]) -> Figures:
        """Of several stores together; the longest free range is that of one of them."""
        sites: Counter[str] = Counter()
        for one in several:
            sites.update(one.site_bytes)
        numbers = {
            f.name: sum(getattr(one, f.name) for one in several)
            for f in fields(Figures)
            if f.name not in ("largest_free_bytes", "site_bytes")
        }
        longest = max((one.largest_free_bytes for one in several), default=0)
        return Figures(**numbers, largest_free_bytes=longest, site_bytes=sites)
