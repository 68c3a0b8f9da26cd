"""Every transformer class of the pinned diffusers, small: what it is built with and called with, or
why it is left out.
"""

from __future__ import annotations

from musiva.perf.catalog import part_a, part_a_2, part_b, part_b_2, part_c, part_c_2
from musiva.perf.catalog.base import Entry, Excluded, build, sized

__all__ = ["ENTRIES", "EXCLUDED", "Entry", "Excluded", "build", "sized"]

PARTS = (part_a, part_a_2, part_b, part_b_2, part_c, part_c_2)
ENTRIES: tuple[Entry, ...] = tuple(entry for part in PARTS for entry in part.ENTRIES)
EXCLUDED: tuple[Excluded, ...] = tuple(one for part in PARTS for one in part.EXCLUDED)
