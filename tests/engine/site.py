"""A loop in virtual time, over a machine that is made up."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.costs import linear_cost

from musiva.core.types import Event, Level, Path, Request
from musiva.engine import Scheduler, StepLoop
from musiva.perf.traffic import SimulatedExecutor, VirtualClock
from musiva.policy import Adaptive, Never, Trip

__all__ = ["DENSE", "ROWS", "STEPS", "TOLERANCES", "Site"]

ROWS = 64
STEPS = 20
TOLERANCES = (0.0, 0.06, 0.1, 0.2)
# Of the dense run alone, by `linear_cost`.
DENSE = STEPS * ROWS * 1e-3 + 0.02


class Site:
    """A loop in virtual time, to which requests come by hand."""

    def __init__(self, discipline: str = "goodput", **config) -> None:
        self.clock = VirtualClock()
        cost = config.pop("cost", linear_cost())
        executor = SimulatedExecutor(cost, self.clock)
        scheduler = Scheduler.Config(discipline=discipline, cost=cost, **config).build()
        self.plans: list = []
        self.loop = StepLoop(
            executor, scheduler, lambda plan, _: self.plans.append(plan), self.clock.now
        )
        executor.state = self.loop.state
        self.events: list[Event] = []
        self.finished: dict[str, float] = {}
        self.names = (f"r{i}" for i in itertools.count())

    def submit(
        self,
        name: str | None = None,
        *,
        levels: bool = True,
        rows: int = ROWS,
        decode_shares: Sequence[float] = (1.0,),
        **asked,
    ):
        policies = [Adaptive(tolerance=t) for t in TOLERANCES] if levels else [Never()]
        qualities = (100, 90, 75, 60) if levels else (100,)
        request = Request(
            id=name or next(self.names),
            prompt="a fox",
            size=(32, 32),
            path=Path(steps=STEPS),
            seed=len(self.finished),
            guidance=3.0,
            levels=tuple(Level(f"p{q}", q) for q in qualities),
            **asked,
        )
        times = tuple(i / STEPS for i in range(STEPS))
        trip = Trip(tuple(1 - t for t in times), (0.0,) * STEPS, times, True, True)
        self.loop.submit(
            request, policies=policies, trip=trip, rows=rows, decode_shares=decode_shares
        )
        return request.id

    def run(self, seconds: float = float("inf")) -> None:
        end = self.clock.now() + seconds
        while self.clock.now() < end and (events := self.loop.step()) is not None:
            self.enter(events)

    def enter(self, events: list[Event]) -> None:
        self.events += events
        self.finished |= {e.request: self.clock.now() for e in events if e.kind == "picture"}

    def report(self, name: str):
        (found,) = (e.report for e in self.events if e.kind == "picture" and e.request == name)
        return found
