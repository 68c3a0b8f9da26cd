"""What a discipline decides: who goes first, how exactly, and who is let in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from musiva.engine.sample import SampleState
from musiva.engine.scheduler.prices import Prices
from musiva.engine.state import EngineState

__all__ = ["Discipline", "Turn", "Verdict", "View"]


@dataclass(frozen=True, slots=True)
class View:
    """What is known at a tick. now: seconds by the loop's clock. patience: seconds after which a
    sample without a deadline is due; for each time that it is overdue by as much, any counts as one
    priority higher.
    """

    state: EngineState
    now: float
    prices: Prices
    patience: float

    def aged(self, sample: SampleState) -> int:
        """Its priority, higher the longer it is overdue."""
        overdue = max(self.now - sample.due, 0.0)
        return sample.request.priority + int(overdue / self.patience)


@dataclass(frozen=True, slots=True)
class Turn:
    """One of those that may advance, in order. slack: seconds by which what is before it, and it,
    may be held up without making it late.
    """

    sample: SampleState
    level: int = 0
    slack: float = math.inf


@dataclass(frozen=True, slots=True)
class Verdict:
    """On a request that asks to be let in. finish: seconds from now after which its pictures should
    be there. refusal: why not, or None. retry: seconds after which it should be possible. reason:
    as of `Overloaded`.
    """

    finish: float = 0.0
    refusal: str | None = None
    retry: float = 0.0
    reason: str = "deadline"


class Discipline(Protocol):
    """Both methods are pure."""

    def turns(self, view: View) -> Sequence[Turn]:
        """All samples that may advance, in order; the first one always does."""
        ...

    def verdict(self, view: View, samples: Sequence[SampleState]) -> Verdict:
        """On the samples of one new request, which have begun, and have their due times."""
        ...
