"""Step loops that are in the middle of many requests."""

from __future__ import annotations

import random
from collections.abc import Sequence

from musiva.cost import CostModel
from musiva.engine import Intake, Pipeline, Scheduler, StepLoop
from musiva.engine.scheduler.prices import Tariff
from musiva.perf.traffic.clock import VirtualClock
from musiva.perf.traffic.simulate import SimulatedExecutor
from musiva.perf.traffic.trace import Asked
from musiva.perf.traffic.wanted import Wanted

__all__ = ["busy"]

SIZES = ((64, 64), (96, 96), (128, 96), (128, 128))


def busy(
    pipeline: Pipeline,
    cost: CostModel,
    prompts: Sequence[str],
    *,
    requests: int,
    every: int = 8,
    seed: int = 3,
) -> StepLoop:
    """A loop with that many requests of all kinds, some way through; deadlines are tight enough for
    levels to be lowered. every: requests come between two of its steps.
    """
    draw, clock = random.Random(seed), VirtualClock()
    executor = SimulatedExecutor(cost, clock)
    loop = StepLoop(executor, Scheduler.Config(cost=cost).build(), clock=clock.now)
    executor.state = loop.state
    intake = Intake(pipeline, tariff=Tariff(cost))
    rate = 0.25 * sum(intake.seconds_alone(intake.request("a fox", size=size)) for size in SIZES)
    i = 0
    while len(loop.state.samples) < requests:
        asked = Asked(
            at=0.0,
            prompt=draw.choice(prompts),
            seed=i,
            size=draw.choice(SIZES),
            min_quality=60,
            max_quality=100,
            deadline=(0.6 * len(loop.state.samples) + 8.0) * rate,
        )
        Wanted.of(intake, f"r{i}", asked).submit(loop, clock.now())
        if i % every == 0:
            loop.step()
        i += 1
    return loop
