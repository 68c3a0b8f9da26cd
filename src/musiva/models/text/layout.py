"""How prompts of many lengths lie in one pack of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Group", "Layout"]

ROW_MULTIPLE = 16


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts of one length: `count` blocks of `padded` rows from row `start`, `length` valid."""

    start: int
    count: int
    length: int
    padded: int

    @property
    def stop(self) -> int:
        return self.start + self.count * self.padded


@dataclass(frozen=True, slots=True)
class Layout:
    """Where prompts lie in the pack: shortest first, so that equal lengths are one plain view.

    Every prompt is padded to a multiple of 16 rows: below about ten rows the CPU's matrix kernels
    change with the row count, so a lone short prompt would not equal the same prompt in company.
    """

    order: tuple[int, ...]
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        order = tuple(sorted(range(len(lengths)), key=lambda index: lengths[index]))
        groups: list[Group] = []
        start = 0
        for length in sorted(set(lengths)):
            padded = -(-length // ROW_MULTIPLE) * ROW_MULTIPLE
            groups.append(Group(start, lengths.count(length), length, padded))
            start = groups[-1].stop
        return cls(order, tuple(groups))
