"""The ways to serve that bench `serve` compares: all with our engine, packs and cost model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from musiva.perf.traffic import Asked

__all__ = ["CONTENDERS", "OURS", "WHOLE", "Contender", "contenders"]

OURS, WHOLE = "goodput", "edf_whole_picture"


@dataclass(frozen=True, slots=True)
class Contender:
    """discipline: of the scheduler. asks: fields of each request that are another one's here."""

    name: str
    discipline: str
    asks: Mapping[str, Any] = field(default_factory=dict)

    def rewritten(self, trace: Sequence[Asked]) -> list[Asked]:
        return [replace(asked, **self.asks) for asked in trace]


DENSE: Mapping[str, Any] = {"min_quality": None, "max_quality": None}
CONTENDERS: Sequence[Contender] = (
    Contender(OURS, "goodput"),
    Contender("fifo", "fifo", DENSE),
    Contender("shortest", "shortest", DENSE),
    Contender("edf", "edf", DENSE),
    Contender("edf_admission", "edf_admission", DENSE),
    Contender("static", "static", DENSE),
)


def contenders(whole: Mapping[str, Any]) -> list[Contender]:
    """With the strongest rival: earliest deadline first, with admission, and every picture made in
    the way that was found to be the cheapest to keep the floor.
    """
    return [*CONTENDERS, Contender(WHOLE, "edf_admission", {**DENSE, **whole})]
