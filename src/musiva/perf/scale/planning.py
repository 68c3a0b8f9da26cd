"""What planning takes: a step of each of many workers, and where a new request goes."""

from __future__ import annotations

import gc
import pickle
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from musiva.core.types import Event
from musiva.cost import CostModel
from musiva.engine import Pipeline, StepLoop
from musiva.engine.fleet.placement import loads_of, placed
from musiva.engine.fleet.ticket import Ticket
from musiva.engine.journal import Entry
from musiva.engine.sample import SampleState
from musiva.perf.measure import percentile
from musiva.perf.traffic.busy import busy

__all__ = ["Planned", "plan_all"]


@dataclass(frozen=True, slots=True)
class Planned:
    """Of each time: milliseconds of planning a step of all workers, one after the other; of placing
    a request; and of hearing what a worker tells of one request after a step. requests: that all
    workers had together at the end, and at the beginning.
    """

    steps: Sequence[float]
    placing: Sequence[float]
    hearing: Sequence[float]
    requests: tuple[int, int]

    @property
    def total(self) -> float:
        """Planning and one placement, in the median."""
        pairs = zip(self.steps, self.placing, strict=True)
        return statistics.median(a + b for a, b in pairs)

    def rows(self, workers: int) -> list[Mapping[str, object]]:
        told = {
            f"planning a step of each of {workers} workers": self.steps,
            "planning a step of one": [taken / workers for taken in self.steps],
            "placing a request": self.placing,
            "hearing of a step, of one request": self.hearing,
        }
        before, after = self.requests
        return [
            {
                "what": f"{what}, ms",
                "requests": before,
                "requests_at_the_end": after,
                "median": statistics.median(taken),
                "p95": percentile(taken, 95),
            }
            for what, taken in told.items()
        ]


def plan_all(
    pipeline: Pipeline,
    cost: CostModel,
    prompts: Sequence[str],
    *,
    workers: int,
    each: int,
    times: int,
) -> Planned:
    """Of so many workers with so many requests each, of mixed sizes, deadlines and progress; all of
    them make a step between two times.
    """
    loops = [
        busy(pipeline, cost, prompts, requests=each, every=2, seed=number)
        for number in range(workers)
    ]
    tickets = [
        (number, _ticket(sample))
        for number, loop in enumerate(loops)
        for sample in loop.state.samples.values()
    ]
    steps, placing, hearing = [], [], []
    # A real worker has a heap of its own; here one collection would go through all of them, and the
    # model.
    gc.collect()
    gc.freeze()
    for _ in range(times):
        start = time.perf_counter()
        plans = [loop.scheduler.schedule(loop.state, loop.clock()) for loop in loops]
        planned = time.perf_counter()
        loads = loads_of(range(workers), ((n, one.left, one.begun) for n, one in tickets))
        assert placed(loads, ()) is not None, "there are workers"
        done = time.perf_counter()
        steps.append(1e3 * (planned - start))
        placing.append(1e3 * (done - planned))
        for loop, plan in zip(loops, plans, strict=True):
            assert plan is not None, "all have requests"
            loop.enter(plan, loop.executor.execute(plan))
        hearing.append(1e3 * _hearing(loops[len(hearing) % workers]))
    gc.unfreeze()
    left = sum(len(loop.state.samples) for loop in loops)
    return Planned(steps, placing, hearing, (len(tickets), left))


def _ticket(sample: SampleState) -> Ticket:
    """What a front knows of it."""
    request = sample.request
    ticket = Ticket(request, None, _nobody, 0.0, seconds=1.0)
    ticket.is_news(Event(request.id, "admitted"))
    if sample.actions:
        ticket.is_news(_progress(sample))
    return ticket


def _hearing(loop: StepLoop) -> float:
    """Seconds that a front takes for the entry and the event of one request, which come as bytes;
    without a checkpoint, which is kept as the bytes that it is.
    """
    sample = next(iter(loop.state.samples.values()))
    ticket = _ticket(sample)
    told = Entry(sample.request.id, 0, sample.evaluation, pickle.dumps(sample.record()))
    messages = [pickle.dumps(told), pickle.dumps(_progress(sample))]
    start = time.perf_counter()
    entry, event = map(pickle.loads, messages)
    ticket.enter(entry)
    ticket.is_news(event)
    return time.perf_counter() - start


def _progress(sample: SampleState) -> Event:
    name, total = sample.request.id, sample.num_evaluations
    return Event(name, "progress", sample.index, sample.evaluation, total)


def _nobody(event: Event) -> None:
    """Nobody asked."""
