"""The request record, and the only code that changes it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import compress
from types import MappingProxyType

from musiva.core.errors import ExecutionFailed
from musiva.core.pack import ROW_ALIGN
from musiva.core.types import (
    Action,
    DecodeItem,
    DenoiseItem,
    EncodeItem,
    Event,
    Outcome,
    Request,
    StepPlan,
    StepResult,
    TileValues,
)
from musiva.engine.actions import checked
from musiva.policy import Asks, Policy, TilePolicy, Trip

__all__ = ["EngineState", "SampleState", "Stage", "admit", "cancel", "update"]

log = logging.getLogger(__name__)


class Stage(Enum):
    DENOISING = auto()
    DECODING = auto()


@dataclass(slots=True)
class SampleState:
    """One picture of a request on its way. rows: packed rows of all its branches, padding
    included. asks: what its policy wants to be measured and kept. memory: what it remembers. next:
    what it wants done, up to the next evaluation that computes. actions: its journal, one per
    evaluation, as it was done.
    """

    id: str
    request: Request
    index: int
    rows: int
    fresh: bool
    policy: Policy
    trip: Trip
    asks: Asks = field(default_factory=Asks)
    memory: object = None
    next: tuple[Action, ...] = ()
    actions: list[Action] = field(default_factory=list)
    stage: Stage = Stage.DENOISING

    @property
    def num_evaluations(self) -> int:
        return self.trip.num_evaluations

    @property
    def evaluation(self) -> int:
        """The one that comes next."""
        return len(self.actions)

    @property
    def num_computed(self) -> int:
        """Evaluations that were computed in full."""
        return sum(action.full for action in self.actions)

    @property
    def cost(self) -> float:
        """The full evaluations that all that was computed is worth, by its tokens."""
        return sum(map(self._share, self.actions))

    @property
    def tile_counts(self) -> tuple[int, ...]:
        """Evaluations that computed each tile, in full or as one of some."""
        if self.trip.tiles is None:
            return ()
        every = (True,) * len(self.trip.tile_tokens)
        ran = [action.tiles or every for action in self.actions if self._share(action)]
        return tuple(sum(tiles[i] for tiles in ran) for i in range(len(every)))

    @property
    def next_rows(self) -> int:
        """Packed rows of what comes next."""
        last = self.next[-1]
        if not last.compute:
            return 0
        branches = len(self.prompts)
        rows = self.rows
        if last.tiles is not None:
            rows = branches * (-(-self._tokens(last.tiles) // ROW_ALIGN) * ROW_ALIGN)
        return rows // branches if last.borrow else rows

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each branch, the conditional one first."""
        request = self.request
        return (request.prompt, request.negative_prompt) if request.guided else (request.prompt,)

    def _share(self, action: Action) -> float:
        """Of the tokens of all branches, those that go through all of the model."""
        if not action.compute or action.held is not None:
            return 0.0
        # A grid that is halved once has a quarter of the tokens.
        share = 0.625 if action.coarse else 1.0 / len(self.prompts) if action.borrow else 1.0
        if action.tiles is None:
            return share
        return share * self._tokens(action.tiles) / sum(self.trip.tile_tokens)

    def _tokens(self, tiles: tuple[bool, ...]) -> int:
        return sum(compress(self.trip.tile_tokens, tiles))


@dataclass(slots=True)
class EngineState:
    """samples: in order of arrival. texts: prompts whose rows are in the store, least recently
    needed first.

    released: samples that ended early and whose slots the next plan frees. steps: plans made so
    far.
    """

    samples: OrderedDict[str, SampleState] = field(default_factory=OrderedDict)
    texts: OrderedDict[str, None] = field(default_factory=OrderedDict)
    released: list[str] = field(default_factory=list)
    steps: int = 0

    def of(self, request: str) -> list[SampleState]:
        return [s for s in self.samples.values() if s.request.id == request]

    @property
    def requests(self) -> list[str]:
        return list(dict.fromkeys(s.request.id for s in self.samples.values()))


def admit(state: EngineState, samples: list[SampleState]) -> None:
    """Add the samples of one new request; their ids are new. Raises ExecutionFailed, and adds
    nothing, when their policy cannot begin.
    """
    for sample in samples:
        if sample.id in state.samples:
            raise ValueError(f"sample {sample.id} is already there")
        if error := decide(sample):
            raise error
    state.samples.update((sample.id, sample) for sample in samples)


def decide(
    sample: SampleState,
    measured: Mapping[str, float | TileValues] = MappingProxyType({}),
) -> ExecutionFailed | None:
    """Let the policy of a sample observe the last of what was done, of which `measured` tells, and
    choose its next actions. A policy is anybody's code: what it raises, or wants and cannot have,
    ends the request.
    """
    policy, trip = sample.policy, sample.trip
    actions: list[Action] = []
    try:
        if not sample.actions:
            sample.asks = Asks.of(policy)
            sample.memory = policy.begin(trip)
        elif (done := sample.actions[-1]).compute:
            sample.memory = _observed(sample, done, measured)
        for evaluation in range(sample.evaluation, trip.num_evaluations):
            wanted = policy.act(trip, sample.memory, evaluation)
            action = checked(wanted, evaluation, sample.asks, trip)
            actions.append(action)
            if action.compute:
                break
    except (Exception, SystemExit) as error:
        log.exception("sample %s: its policy failed at %d", sample.id, sample.evaluation)
        name = type(policy).__name__
        return ExecutionFailed(f"policy {name} failed at evaluation {sample.evaluation}: {error}")
    sample.next = tuple(actions)
    return None


def _observed(
    sample: SampleState, done: Action, measured: Mapping[str, float | TileValues]
) -> object:
    """The memory of a sample's policy after the model ran."""
    policy, trip, last = sample.policy, sample.trip, sample.evaluation - 1
    if isinstance(policy, TilePolicy):
        return policy.observe(trip, sample.memory, last, done, measured)
    numbers = {name: x for name, x in measured.items() if not isinstance(x, tuple)}
    return policy.observe(trip, sample.memory, last, done, numbers)


def cancel(state: EngineState, request: str) -> bool:
    """Drop all that is left of a request; its slots are freed by the next plan. False if it is not
    there.
    """
    samples = state.of(request)
    for sample in samples:
        del state.samples[sample.id]
        state.released.append(sample.id)
    return bool(samples)


def update(state: EngineState, plan: StepPlan, result: StepResult) -> list[Event]:
    """Enter what a step did into the record, and tell the news. A failed sample ends its whole
    request.
    """
    state.steps = plan.number
    state.released = [sample for sample in state.released if sample not in plan.release]
    for prompt in plan.drop_texts:
        state.texts.pop(prompt, None)
    events: list[Event] = []
    for item, outcome in zip(plan.items, result.outcomes, strict=True):
        if outcome.error is not None:
            for request in _requests_of(state, item):
                cancel(state, request)
                events.append(Event(request, "failed", error=outcome.error))
        elif isinstance(item, EncodeItem):
            state.texts[item.prompt] = None
        elif item.sample in state.samples:
            events.extend(_advance(state, state.samples[item.sample], item, outcome))
    return events


def _requests_of(state: EngineState, item: EncodeItem | DenoiseItem | DecodeItem) -> list[str]:
    if isinstance(item, EncodeItem):
        waiting = (s for s in state.samples.values() if item.prompt in s.prompts)
        return list(dict.fromkeys(s.request.id for s in waiting))
    sample = state.samples.get(item.sample)
    return [] if sample is None else [sample.request.id]


def _advance(
    state: EngineState, sample: SampleState, item: DenoiseItem | DecodeItem, outcome: Outcome
) -> Iterator[Event]:
    request, total = sample.request.id, sample.num_evaluations
    if isinstance(item, DenoiseItem):
        for prompt in sample.prompts:
            state.texts.move_to_end(prompt)
        sample.fresh = False
        done = item.actions if outcome.action is None else (*item.actions[:-1], outcome.action)
        sample.actions.extend(done)
        if sample.evaluation == total:
            sample.stage = Stage.DECODING
            sample.next = ()
        elif error := decide(sample, outcome.measured):
            cancel(state, request)
            yield Event(request, "failed", error=error)
            return
        news = Event(
            request,
            "progress",
            sample.index,
            sample.evaluation,
            total,
            computed=sample.num_computed,
            cost=sample.cost,
            actions=done,
            tiles=sample.trip.tiles,
        )
        yield news
        if outcome.picture is not None:
            yield replace(news, kind="preview", picture=outcome.picture)
        return
    if outcome.picture is None:
        raise ExecutionFailed(f"sample {sample.id}: decoding brought no picture")
    del state.samples[sample.id]
    yield Event(
        request,
        "picture",
        sample.index,
        total,
        total,
        outcome.picture,
        computed=sample.num_computed,
        cost=sample.cost,
        warning=_without_effect(sample),
        actions=tuple(sample.actions),
        tiles=sample.trip.tiles,
        tile_counts=sample.tile_counts,
    )
    if not state.of(request):
        yield Event(request, "done")


def _without_effect(sample: SampleState) -> str | None:
    """A policy that could have skipped something, and never did: users and logs are told."""
    asks, done = sample.asks, sample.actions
    if not (asks.keep or asks.probes) or len(done) < 2:
        return None
    if any(not action.full or action.borrow for action in done):
        return None
    request = sample.request
    log.warning("policy %r found nothing to skip in %s", request.policy, sample.id)
    # Below 100 the quality is what was asked for, and has chosen the policy.
    asked = (
        f"policy: {request.policy!r}" if request.quality == 100 else f"quality: {request.quality}"
    )
    return f"{asked} had no effect; it found nothing to skip"
