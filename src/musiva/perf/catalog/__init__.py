"""Every transformer class of the pinned diffusers, small: what it is built with, or why it is left
out.
"""

from __future__ import annotations

from musiva.perf.catalog import part_a, part_b, part_c
from musiva.perf.catalog.base import Entry, Excluded, build

__all__ = ["ENTRIES", "EXCLUDED", "Entry", "Excluded", "build"]

PARTS = (part_a, part_b, part_c)
ENTRIES: tuple[Entry, ...] = tuple(entry for part in PARTS for entry in part.ENTRIES)
EXCLUDED: tuple[Excluded, ...] = tuple(one for part in PARTS for one in part.EXCLUDED)
