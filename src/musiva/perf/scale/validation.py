"""The simulator against real fleets of this machine, on traces that nothing was fitted to."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from musiva.cost import CostModel
from musiva.engine import Fleet, Front, Intake, Pipeline, Scheduler, Workers
from musiva.engine.scheduler.prices import Tariff
from musiva.perf.scale.cluster import Cluster, Link
from musiva.perf.scale.fitting import Run, Times, fitted
from musiva.perf.scale.replay import messages_take, replay
from musiva.perf.traffic import Asked, Mix, Wanted, make_trace

__all__ = ["Plan", "Validated", "validate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """counts: of workers, each of one thread. turns: of traces, in order: whether it is one of
    those that are fitted to, its shape, and its load, as a share of what the cores can do. seconds:
    in which its requests come. times: that each is run, by turns with the others; what is taken is
    the median. sizes: with weights.
    """

    counts: Sequence[int] = (2, 4)
    turns: Sequence[tuple[bool, str, float]] = (
        (True, "poisson", 0.5),
        (False, "poisson", 0.6),
        (False, "bursty", 0.7),
        (True, "bursty", 0.7),
        (False, "diurnal", 0.7),
        (False, "poisson", 0.8),
    )
    seconds: float = 14.0
    times: int = 3
    sizes: Mapping[tuple[int, int], float]
    steps: int = 10
    least: int = 16


@dataclass(frozen=True, slots=True)
class Validated:
    """error: of the mean latency of a picture, relative, in the median of all traces that were not
    fitted. cluster: of this machine, with the number of workers left open.
    """

    error: float
    cluster: Cluster
    rows: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Turn:
    """A run, and what it was. means: of each time that it was measured."""

    run: Run
    is_fitted: bool
    shape: str
    load: float
    means: Sequence[float]

    def row(self, cluster: Cluster, scheduler: Scheduler.Config) -> Mapping[str, object]:
        measured, found = self.run.measured, self.run.simulated(cluster, scheduler)
        return {
            "what": "fitted to" if self.is_fitted else "held out",
            "workers": self.run.workers.count,
            "shape": self.shape,
            "load": self.load,
            "requests": len(self.run.trace),
            "error": abs(found.mean / measured.mean - 1.0),
            "measured_mean": measured.mean,
            "measured_means": list(self.means),
            "simulated_mean": found.mean,
            "measured_p95": measured.p95,
            "simulated_p95": found.p95,
            "measured_span": measured.span,
            "simulated_span": found.span,
        }


def validate(
    pipeline: Pipeline,
    fleets: Callable[[Workers, Front.Config], Fleet],
    cost: CostModel,
    prompts: Sequence[str],
    plan: Plan,
) -> Validated:
    """Runs all traces of a plan on real fleets of the pipeline, which `fleets` starts. cost: of one
    thread.
    """
    scheduler = Scheduler.Config(cost=cost)
    intake = Intake(pipeline, tariff=Tariff(cost))
    cores = os.cpu_count() or 1
    turns: list[Turn] = []
    placing, messages = [], []
    for count in plan.counts:
        workers = Workers(count=count, threads=1)
        config = Front.Config(scheduler=scheduler)
        with fleets(workers, config) as fleet:
            _warm(fleet, prompts, plan, count)
            messages.append(messages_take(fleet))
            traces = list(_traces(intake, prompts, plan, min(count, cores), count))
            times: list[list[Times]] = [[] for _ in traces]
            for again in range(plan.times):
                for (_, shape, load, asked), measured in zip(traces, times, strict=True):
                    found = replay(fleet, _unheard(asked, again))
                    placing.append(found.placing)
                    measured.append(Times.of(found.fates))
                    told = f"{count} workers, {shape}, load {load}: {measured[-1].mean:.3f} s"
                    print(told, file=sys.stderr, flush=True)
            for (is_fitted, shape, load, asked), measured in zip(traces, times, strict=True):
                wanted = [Wanted.of(intake, f"r{i}", one) for i, one in enumerate(asked)]
                run = Run(workers, wanted, Times.median(measured))
                spread = [one.mean for one in measured]
                turns.append(Turn(run, is_fitted, shape, load, spread))
    start = Cluster(
        devices=max(plan.counts),
        cores=float(cores),
        company=0.1,
        front=Link(latency=statistics.median(messages)),
        placing=statistics.median(placing),
        step=1e-3,
    )
    found = fitted([turn.run for turn in turns if turn.is_fitted], start, scheduler)
    rows = [turn.row(found, scheduler) for turn in turns]
    errors = [float(str(row["error"])) for row in rows if row["what"] == "held out"]
    return Validated(statistics.median(errors), found, [*rows, _told(found)])


def _traces(
    intake: Intake, prompts: Sequence[str], plan: Plan, at_once: int, seed: int
) -> Iterator[tuple[bool, str, float, Sequence[Asked]]]:
    """No prompt is in two of them: texts that are known already would be a head start. at_once:
    workers that can be at work without slowing each other down.
    """
    total = sum(plan.sizes.values())
    alone = sum(
        weight * intake.seconds_alone(intake.request(prompts[0], size=size, steps=plan.steps))
        for size, weight in plan.sizes.items()
    )
    capacity = at_once * total / alone
    for i, (is_fitted, shape, load) in enumerate(plan.turns):
        own = prompts[i :: len(plan.turns)]
        mix = Mix(prompts=own, sizes=plan.sizes, steps=plan.steps)
        count = max(round(load * capacity * plan.seconds), plan.least)
        trace = make_trace(shape, mix, rate=load * capacity, count=count, seed=100 * seed + i)
        yield is_fitted, shape, load, trace


def _unheard(trace: Sequence[Asked], again: int) -> Sequence[Asked]:
    """With other prompts of nearly the same length: of those of before the texts are known."""
    return [replace(one, prompt=f"{one.prompt} {again}") for one in trace]


def _warm(fleet: Fleet, prompts: Sequence[str], plan: Plan, count: int) -> None:
    """The first steps of a process are slower than all others."""
    for size in plan.sizes:
        fleet.generate([prompts[0]] * (2 * count), size=size, steps=plan.steps, seed=0)


def _told(cluster: Cluster) -> Mapping[str, object]:
    return {
        "what": "this machine, fitted",
        "cores": cluster.cores,
        "rate": cluster.rate,
        "company": cluster.company,
        "step": cluster.step,
        "message": cluster.front.latency,
        "placing": cluster.placing,
    }
