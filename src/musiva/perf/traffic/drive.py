"""A trace run against a step loop, in the time of its clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from musiva.core.errors import Overloaded
from musiva.core.types import Report
from musiva.engine import Intake, StepLoop
from musiva.perf.traffic.clock import Clock
from musiva.perf.traffic.trace import Asked
from musiva.perf.traffic.wanted import Wanted

__all__ = ["Fate", "drive"]


@dataclass(slots=True)
class Fate:
    """What became of a request. seconds: from its arrival to its picture; None if there is none.
    refused: it was told so at once. predicted: the seconds that it was told when it was admitted.
    """

    asked: Asked
    refused: bool = False
    predicted: float | None = None
    seconds: float | None = None
    cost: float = 0.0
    report: Report | None = None
    picture: np.ndarray | None = field(default=None, repr=False)

    @property
    def on_time(self) -> bool:
        """A picture without a deadline is on time whenever it comes."""
        if self.seconds is None:
            return False
        return self.asked.deadline is None or self.seconds <= self.asked.deadline


def drive(
    loop: StepLoop,
    intake: Intake,
    trace: Sequence[Asked],
    clock: Clock,
    *,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Fate]:
    """One fate for each request, each with one picture. Ends when every picture is there or too
    late, and cancels the latter. `clock` is that of the loop. tell: how many requests have ended,
    of how many. Raises what a request fails of, other than being refused.
    """
    start, fates = clock.now(), {f"t{i}": Fate(asked) for i, asked in enumerate(trace)}
    waiting = list(reversed(fates.items()))
    while True:
        while waiting and start + waiting[-1][1].asked.at <= clock.now():
            _submit(loop, intake, *waiting.pop(), start)
        if not waiting and _is_over(fates, clock.now() - start):
            for name in loop.state.requests:
                loop.cancel(name)
        events = loop.step()
        if events is None:
            if not waiting:
                return list(fates.values())
            clock.wait_until(start + waiting[-1][1].asked.at)
        for event in events or []:
            fate = fates[event.request]
            if event.error is not None:
                raise event.error
            if event.kind == "picture":
                fate.seconds = clock.now() - start - fate.asked.at
                fate.cost, fate.report = event.cost, event.report
                fate.picture = event.picture if isinstance(event.picture, np.ndarray) else None
            elif event.kind == "done":
                left = len(waiting) + len(loop.state.samples)
                tell(len(fates) - left, len(fates))


def _submit(loop: StepLoop, intake: Intake, name: str, fate: Fate, start: float) -> None:
    try:
        admitted = Wanted.of(intake, name, fate.asked).submit(loop, start + fate.asked.at)
    except Overloaded:
        fate.refused = True
    else:
        fate.predicted = admitted.finish


def _is_over(fates: dict[str, Fate], now: float) -> bool:
    """Whether all that could still come is too late."""
    return all(
        fate.refused
        or fate.seconds is not None
        or now > fate.asked.at + (math.inf if fate.asked.deadline is None else fate.asked.deadline)
        for fate in fates.values()
    )
