"""The usual disciplines, which make every picture as exactly as it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from musiva.engine.sample import SampleState
from musiva.engine.scheduler.base import Turn, Verdict, View
from musiva.engine.scheduler.order import Promises, by_due, hopeful_by_due, slacks

__all__ = ["EarliestDue", "EarliestDueAdmitted", "Fifo", "Shortest", "Static"]


class Fifo:
    """As they came."""

    def turns(self, view: View) -> Sequence[Turn]:
        return [Turn(sample) for sample in view.state.samples.values()]

    def verdict(self, view: View, samples: Sequence[SampleState]) -> Verdict:
        return Verdict()


class Shortest(Fifo):
    """Least work left first."""

    def turns(self, view: View) -> Sequence[Turn]:
        ranked = sorted(view.state.samples.values(), key=lambda s: view.prices.left(s, 0))
        return [Turn(sample) for sample in ranked]


@dataclass(frozen=True)
class EarliestDue:
    """Earliest deadline first."""

    def turns(self, view: View) -> Sequence[Turn]:
        return _in_order(view, by_due(view, view.state.samples.values()))

    def verdict(self, view: View, samples: Sequence[SampleState]) -> Verdict:
        return Verdict()


@dataclass(frozen=True)
class EarliestDueAdmitted:
    """The same, where what cannot be on time is refused, and what is late all the same yields.

    crowd: see `Promises`; by simulation what serves it best, over loads and deadlines.
    """

    crowd: float = 2.0

    def turns(self, view: View) -> Sequence[Turn]:
        return _in_order(view, hopeful_by_due(view, list(view.state.samples.values())))

    def verdict(self, view: View, samples: Sequence[SampleState]) -> Verdict:
        return Promises(hopeful_by_due, 0, self.crowd).verdict(view, samples)


def _in_order(view: View, order: Sequence[SampleState]) -> list[Turn]:
    works = [view.prices.left(sample, 0) for sample in order]
    return [Turn(s, 0, x) for s, x in zip(order, slacks(view, order, works), strict=True)]


@dataclass(frozen=True)
class Static(Fifo):
    """What servers do that batch by shape: the oldest, and those behind it of its size, steps,
    sampler and guidance, up to `most`, run to their end together; nobody joins them.
    """

    most: int = 8

    def turns(self, view: View) -> Sequence[Turn]:
        samples = list(view.state.samples.values())
        running = [s for s in samples if s.actions or s.spent]
        if running:
            return [Turn(sample) for sample in running]
        shape = _shape(samples[0]) if samples else None
        return [Turn(s) for s in samples if _shape(s) == shape][: self.most]


def _shape(sample: SampleState) -> tuple[object, ...]:
    request = sample.request
    return request.size, request.frames, request.path, request.guided, request.levels
