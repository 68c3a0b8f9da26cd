"""Orders, and what is known of samples in one: whether they can be on time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from musiva.engine.sample import SampleState
from musiva.engine.scheduler.base import Verdict, View

__all__ = ["Promises", "by_due", "hopeful_by_due", "is_hopeless", "slacks"]

Order = Callable[[View, Sequence[SampleState]], list[SampleState]]


def by_due(
    view: View, samples: Iterable[SampleState], last: Collection[str] = ()
) -> list[SampleState]:
    """Earliest due first, within a priority. last: ids of those that yield to all others of it."""
    return sorted(samples, key=lambda s: (-view.aged(s), s.id in last, s.due))


def hopeful_by_due(view: View, samples: Sequence[SampleState]) -> list[SampleState]:
    """The same, but what is hopeless yields to what is not."""
    return by_due(view, samples, {s.id for s in samples if is_hopeless(view, s)})


def is_hopeless(view: View, sample: SampleState) -> bool:
    """Whether it would be late at its floor, alone, from now on."""
    deadline = sample.deadline
    return deadline is not None and view.now + view.prices.left(sample, -1) > deadline


def slacks(view: View, order: Sequence[SampleState], works: Sequence[float]) -> list[float]:
    """Seconds that each sample of an order has to spare, if each takes so many; infinitely many
    where there is no deadline, or where it is late anyway.
    """
    found, cursor = [], view.now
    for sample, work in zip(order, works, strict=True):
        cursor += work
        spare = math.inf if sample.deadline is None else sample.deadline - cursor
        found.append(spare if spare >= 0.0 else math.inf)
    return found


@dataclass(frozen=True, slots=True)
class Promises:
    """Admission: whether, with a request let in, all that are on time stay so, and it is too.

    order: that they run in. level: the one that everything can be had at, counted from the most
    exact; -1 is the last. margin: of all work, what it may take longer.
    """

    order: Order
    level: int
    margin: float

    def verdict(self, view: View, samples: Sequence[SampleState]) -> Verdict:
        new = {sample.id for sample in samples}
        order = self.order(view, [*view.state.samples.values(), *samples])
        cursor, finish, short = view.now, view.now, 0.0
        worst: SampleState | None = None
        without = view.now
        for sample in order:
            work = view.prices.left(sample, self.level) * (1.0 + self.margin)
            cursor += work
            if sample.id in new:
                finish = cursor
            else:
                without += work
            due = sample.deadline
            # What was late before is not what this one is refused for.
            if due is None or (sample.id not in new and without > due):
                continue
            if cursor - due > short:
                short, worst = cursor - due, sample
        seconds = finish - view.now
        if worst is None or not view.prices.tariff.known:
            return Verdict(seconds)
        if worst.id in new:
            asked = worst.request.deadline
            why = f"it would be done in {seconds:.2f} s, and its deadline is {asked:g} s"
        else:
            why = "a picture that was promised in time would be late"
        return Verdict(seconds, why, short)
