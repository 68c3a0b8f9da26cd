"""One picture in a step loop of its own, with all that can be seen between the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from musiva.core.types import Action, DenoiseItem, Event, Request, StepPlan, StepResult
from musiva.engine import Engine, InlineExecutor, Scheduler, StepLoop
from musiva.engine.slot import Checkpoint

__all__ = ["Evaluation", "Run", "follow"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """action: what was done. cost: the full evaluations that it is worth. latent: [C, H, W] float32
    after it. store_bytes: of the pages in use after its step.
    """

    action: Action
    cost: float
    latent: Tensor
    store_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """picture: [H, W, 3] uint8. computed: evaluations that were computed in full. cost: the full
    ones that all that was computed is worth. tiles: (rows, columns), and tile_counts: evaluations
    that computed each, of a policy that has tiles.
    """

    picture: np.ndarray
    evaluations: tuple[Evaluation, ...]
    computed: int
    cost: float
    tiles: tuple[int, int] | None
    tile_counts: tuple[int, ...]


@dataclass(slots=True)
class Watched:
    """An executor that notes the latent after every evaluation, skipped ones included, and the
    bytes that the store has in use after each.
    """

    executor: InlineExecutor
    latents: list[Tensor] = field(default_factory=list)
    store_bytes: list[int] = field(default_factory=list)

    def execute(self, plan: StepPlan) -> StepResult:
        used = self.executor.store_figures.used_bytes
        items = [item for item in plan.items if isinstance(item, DenoiseItem)]
        for item in items:
            skipped = self.executor.skipped_latents(item)
            self.latents += skipped
            self.store_bytes += [used] * len(skipped)
        result = self.executor.execute(plan)
        for item, outcome in zip(items, result.outcomes, strict=False):
            if item.computes and outcome.error is None:
                self.latents.append(self.executor.latent(item.sample))
                self.store_bytes.append(self.executor.store_figures.used_bytes)
        return result

    def put_latent(self, sample: str, latent: Tensor) -> None:
        self.executor.put_latent(sample, latent)

    def checkpoint(self, sample: str) -> Checkpoint | None:
        return self.executor.checkpoint(sample)

    def restore(self, sample: str, checkpoint: Checkpoint) -> None:
        self.executor.restore(sample, checkpoint)

    def check_integrity(self, live: Sequence[str]) -> None:
        self.executor.check_integrity(live)


def follow(engine: Engine, request: Request) -> Run:
    """Make the one picture of a checked request, with the engine's model and the budget of its
    store, but in this thread. Raises what the request failed of.
    """
    store_bytes = engine.config.store_bytes
    watched = Watched(InlineExecutor(engine.pipeline, store_bytes=store_bytes))
    loop = StepLoop(watched, Scheduler.Config().build())
    policies, trip = engine.policies_of(request), engine.trip_of(request)
    loop.submit(request, policies=policies, trip=trip, rows=engine.rows_of(request))
    costs, made = [0.0], None
    while (events := loop.step()) is not None:
        for event in events:
            if event.error is not None:
                raise event.error
            if event.kind == "progress":
                # Of what it tells of, only the last evaluation may have cost anything.
                skipped = event.evaluation - len(costs)
                costs += [costs[-1]] * skipped + [event.cost]
            elif event.kind == "picture":
                made = event
    assert made is not None, "a request ends with its pictures or an error"
    return _run(made, np.diff(costs).tolist(), watched)


def _run(made: Event, costs: Sequence[float], watched: Watched) -> Run:
    assert isinstance(made.picture, np.ndarray)
    parts = made.actions, costs, watched.latents, watched.store_bytes
    evaluations = tuple(Evaluation(*each) for each in zip(*parts, strict=True))
    return Run(made.picture, evaluations, made.computed, made.cost, made.tiles, made.tile_counts)
