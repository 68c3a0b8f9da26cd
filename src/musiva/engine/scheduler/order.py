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
    exact; -1 is the last. margin: of all work, what it may take longer; crowd: the same of what
    others have before a sample, beside which it runs in packs that are not always full.
    """

    order: Order
    level: int
    crowd: float
    margin: float = 0.05

    def verdict(self, view: View, samples: Sequence[SampleState]) -> Verdict:
        new = {sample.id for sample in samples}
        order = self.order(view, [*view.state.samples.values(), *samples])
        cursor, likely, latest, short = view.now, view.now, view.now, 0.0
        worst: SampleState | None = None
        without = finish = view.now
        for sample in order:
            work = view.prices.left(sample, self.level)
            own = work * (1.0 + self.margin)
            share = own if sample.id in new else work * (1.0 + self.crowd)
            done, likely = cursor + own, likely + own
            if sample.id in new:
                finish, latest = likely, done
            due = sample.deadline
            # What was late before is not what this one is refused for.
            counts = due is not None and (sample.id in new or without + own <= due)
            if due is not None and counts and done - due > short:
                short, worst = done - due, sample
            cursor += share
            if sample.id not in new:
                without += own
        if worst is None or not view.prices.tariff.known:
            return Verdict(finish - view.now)
        seconds = latest - view.now
        if worst.id in new:
            asked = worst.request.deadline
            why = f"it may take {seconds:.2f} s, and its deadline is {asked:g} s"
        else:
            why = "a picture that was promised in time would be late"
        return Verdict(seconds, why, short)
