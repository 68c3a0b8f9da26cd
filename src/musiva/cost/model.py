"""Seconds of a step, linear in what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import mul

from musiva.core.types import Kind
from musiva.cost.work import Work

__all__ = ["CostModel"]

LARGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class CostModel:
    """weights: by kind of step, seconds for one of each of `musiva.cost.work.FEATURES`; none is
    negative.
    """

    weights: Mapping[Kind, tuple[float, ...]]

    def seconds(self, work: Work) -> float:
        return sum(map(mul, self.weights[work.kind], work.features()))

    def knee(self, work: Work, share: float) -> int:
        """The rows from which on more of the same kind make a row cheaper by less than `share` of
        what it costs. work: of a step of denoising, of typical samples.
        """
        cheapest = self._per_row(work, LARGEST)
        rows = max(work.rows, 1)
        while rows < LARGEST and self._per_row(work, rows) > (1.0 + share) * cheapest:
            rows *= 2
        return rows

    def _per_row(self, work: Work, rows: int) -> float:
        """Seconds of a row in a pack of `rows` that is made of samples like those of `work`."""
        scale = rows / work.rows
        grown = Work(
            kind=work.kind,
            items=max(round(work.items * scale), 1),
            rows=rows,
            pairs=round(work.pairs * scale),
            branches=max(round(work.branches * scale), 1),
        )
        return self.seconds(grown) / rows
