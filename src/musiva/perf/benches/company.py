"""Requests of any policies in one step loop, together or one by one: pictures, journals, bytes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from musiva.core.pack import ROW_ALIGN
from musiva.core.tiling import Tile
from musiva.core.types import Action, DenoiseItem, Level, Path, Request, StepPlan, StepResult
from musiva.engine import InlineExecutor, Pipeline, Scheduler, StepLoop
from musiva.policy import Asks, Never, Policy, Trip
from musiva.samplers import build_schedule
from musiva.store import Figures, Need, Store

__all__ = ["Guest", "Outing", "Replay", "go_out", "replay_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A request for one picture, which comes before step `arrives`."""

    prompt: str
    policy: Policy
    size: tuple[int, int]
    steps: int
    guidance: float
    seed: int
    arrives: int = 0


@dataclass(frozen=True)
class Replay(Never):
    """Does what a journal says, and fails where something else was done; what that holds is kept by
    the probes of the policy that wrote it.
    """

    actions: tuple[Action, ...]
    probes: tuple[str, ...]
    keep: int

    def observe(
        self,
        trip: Trip,
        memory: None,
        evaluation: int,
        action: Action,
        measured: Mapping[str, object],
    ) -> None:
        assert action == self.actions[evaluation], f"evaluation {evaluation}: {action} was done"

    def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
        return self.actions[evaluation]


@dataclass(frozen=True, kw_only=True)
class TileReplay(Replay):
    """Of a policy with tiles."""

    tile: Tile


def replay_of(policy: Policy, journal: Sequence[Action]) -> Replay:
    """The journal of a policy, as a policy."""
    asks, actions = Asks.of(policy), tuple(journal)
    if asks.tile is None:
        return Replay(actions, asks.probes, asks.keep)
    return TileReplay(actions, asks.probes, asks.keep, tile=asks.tile)


@dataclass(slots=True)
class Outing:
    """Of each guest, in order: its picture, [H, W, 3] uint8, and its journal. peak_bytes: most that
    the store ever had in use. figures: of the store at the end.
    """

    pictures: list[np.ndarray]
    journals: list[tuple[Action, ...]]
    peak_bytes: int
    figures: Figures

    @property
    def num_held(self) -> int:
        """Evaluations at which something was held."""
        return sum(action.held is not None for journal in self.journals for action in journal)


@dataclass(slots=True)
class Record:
    """What a loop did, by sample."""

    actions: dict[str, list[Action]] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        for item, outcome in zip(plan.items, result.outcomes, strict=True):
            if outcome.error is None and isinstance(item, DenoiseItem):
                last = item.actions[-1] if outcome.action is None else outcome.action
                self.actions.setdefault(item.sample, []).extend((*item.actions[:-1], last))


def go_out(pipeline: Pipeline, guests: Sequence[Guest], *, store_bytes: int) -> Outing:
    """Run all guests in one loop of its own. Raises what one of them failed of."""
    executor, record = InlineExecutor(pipeline, store_bytes=store_bytes), Record()
    used = _watch(executor.gates.store)
    loop = StepLoop(executor, Scheduler.Config().build(), record.observe)
    names = [f"guest{i}" for i in range(len(guests))]
    waiting = sorted(zip(names, guests, strict=True), key=lambda one: one[1].arrives)
    step = 0
    while True:
        while waiting and (waiting[0][1].arrives <= step or not loop.state.samples):
            _submit(loop, pipeline, *waiting.pop(0))
        events = loop.step()
        if events is None:
            break
        for event in events:
            if event.error is not None:
                raise event.error
            if isinstance(event.picture, np.ndarray):
                record.pictures[event.request] = event.picture
        step += 1
    return Outing(
        [record.pictures[name] for name in names],
        [tuple(record.actions[f"{name}/0"]) for name in names],
        max(used, default=0),
        executor.store_figures,
    )


def _watch(store: Store) -> list[int]:
    """Gets the bytes in use after each reservation: only there do they grow."""
    used, reserve = [], store.reserve

    def watched(owner: Hashable, needs: Mapping[str, Need], value: float) -> bool:
        got = reserve(owner, needs, value)
        used.append(store.figures().used_bytes)
        return got

    store.reserve = watched
    return used


def _submit(loop: StepLoop, pipeline: Pipeline, name: str, guest: Guest) -> None:
    request = Request(
        id=name,
        prompt=guest.prompt,
        size=guest.size,
        path=Path(steps=guest.steps),
        seed=guest.seed,
        guidance=guest.guidance,
        levels=(Level(type(guest.policy).__name__),),
    )
    schedule = build_schedule(pipeline.noise, None, guest.steps)
    trip = Trip.along(schedule, guided=request.guided, calibration=pipeline.calibration)
    trip = trip.tiled(pipeline.grid(guest.size), Asks.of(guest.policy).tile)
    branch_rows = -(-pipeline.num_tokens(guest.size) // ROW_ALIGN) * ROW_ALIGN
    rows = branch_rows * (2 if request.guided else 1)
    loop.submit(request, policies=[guest.policy], trip=trip, rows=rows)
