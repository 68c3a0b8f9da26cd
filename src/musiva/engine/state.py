"""The request record, and the only code that changes it."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from musiva.core.errors import ExecutionFailed
from musiva.core.types import (
    DecodeItem,
    DenoiseItem,
    EncodeItem,
    Event,
    Outcome,
    Prompt,
    StepPlan,
    StepResult,
)
from musiva.cost import Drift
from musiva.engine.sample import SampleState, Stage, observe

__all__ = ["Arrival", "EngineState", "admit", "cancel", "update"]

log = logging.getLogger(__name__)
REMEMBERED_ARRIVALS = 64


@dataclass(frozen=True, slots=True)
class Arrival:
    """Of a request. work: seconds that it takes, at each of its levels."""

    at: float
    tenant: str
    work: tuple[float, ...]


@dataclass(slots=True)
class EngineState:
    """samples: in order of arrival. texts: prompts whose rows are in the store, least recently
    needed first.

    released: samples that ended early and whose slots the next plan frees. steps: plans made so
    far. arrivals: the latest that were admitted. drift: of what steps take against what the cost
    model says. last_due: of each tenant that has samples without a deadline.
    """

    samples: OrderedDict[str, SampleState] = field(default_factory=OrderedDict)
    texts: OrderedDict[Prompt, None] = field(default_factory=OrderedDict)
    released: list[str] = field(default_factory=list)
    steps: int = 0
    arrivals: deque[Arrival] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ARRIVALS))
    drift: Drift = field(default_factory=Drift)
    last_due: dict[str, float] = field(default_factory=dict)

    def of(self, request: str) -> list[SampleState]:
        return [s for s in self.samples.values() if s.request.id == request]

    @property
    def requests(self) -> list[str]:
        return list(dict.fromkeys(s.request.id for s in self.samples.values()))


def admit(state: EngineState, samples: Sequence[SampleState]) -> None:
    """Add the samples of one new request, which have begun; their ids are new."""
    for sample in samples:
        if sample.id in state.samples:
            raise ValueError(f"sample {sample.id} is already there")
    state.samples.update((sample.id, sample) for sample in samples)


def cancel(state: EngineState, request: str) -> bool:
    """Drop all that is left of a request; its slots are freed by the next plan. False if it is not
    there.
    """
    samples = state.of(request)
    for sample in samples:
        del state.samples[sample.id]
        state.released.append(sample.id)
    return bool(samples)


def update(state: EngineState, plan: StepPlan, result: StepResult, now: float) -> list[Event]:
    """Enter what a step did, which ends now, into the record, and tell the news. A failed sample
    ends its whole request.
    """
    state.steps = plan.number
    state.released = [sample for sample in state.released if sample not in plan.release]
    for prompt in plan.drop_texts:
        state.texts.pop(prompt, None)
    for sample in _participants(state, plan):
        sample.spent[plan.kind] = sample.spent.get(plan.kind, 0.0) + result.seconds
    events: list[Event] = []
    for item, outcome in zip(plan.items, result.outcomes, strict=True):
        if outcome.error is not None:
            for request in _requests_of(state, item):
                cancel(state, request)
                events.append(Event(request, "failed", error=outcome.error))
        elif isinstance(item, EncodeItem):
            state.texts[item.prompt] = None
        elif item.sample in state.samples:
            events.extend(_advance(state, state.samples[item.sample], item, outcome, now))
    if not state.samples:
        state.last_due.clear()
    return events


def _participants(state: EngineState, plan: StepPlan) -> Iterator[SampleState]:
    """Those that waited for what a step did."""
    prompts = {item.prompt for item in plan.items if isinstance(item, EncodeItem)}
    if prompts:
        yield from (s for s in state.samples.values() if not prompts.isdisjoint(s.prompts))
    for item in plan.items:
        if not isinstance(item, EncodeItem) and item.sample in state.samples:
            yield state.samples[item.sample]


def _requests_of(state: EngineState, item: EncodeItem | DenoiseItem | DecodeItem) -> list[str]:
    if isinstance(item, EncodeItem):
        waiting = (s for s in state.samples.values() if item.prompt in s.prompts)
        return list(dict.fromkeys(s.request.id for s in waiting))
    sample = state.samples.get(item.sample)
    return [] if sample is None else [sample.request.id]


def _advance(
    state: EngineState,
    sample: SampleState,
    item: DenoiseItem | DecodeItem,
    outcome: Outcome,
    now: float,
) -> Iterator[Event]:
    request, total = sample.request.id, sample.num_evaluations
    levels = sample.request.levels
    if isinstance(item, DenoiseItem):
        for prompt in sample.prompts:
            state.texts.move_to_end(prompt)
        sample.fresh = False
        sample.level = item.level
        sample.coarsest = max(sample.coarsest, item.level)
        sample.reused += outcome.found
        done = item.actions if outcome.action is None else (*item.actions[:-1], outcome.action)
        sample.actions.extend(done)
        if sample.evaluation == total:
            sample.stage = Stage.DECODING
            sample.next, sample.left = (), (0.0,) * len(sample.policies)
        elif error := observe(sample, outcome.measured):
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
            quality=levels[item.level].quality,
        )
        yield news
        if outcome.picture is not None:
            yield replace(news, kind="preview", picture=outcome.picture)
        return
    if item.last is not None:
        sample.decoded = item.last
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
        quality=levels[sample.coarsest].quality,
        report=sample.report(now),
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
    if request.max_quality == 100 and request.min_quality < 100:
        return None  # there was time for the dense run
    log.warning("policy %r found nothing to skip in %s", request.policy, sample.id)
    # Below 100 the quality is what was asked for, and has chosen the policy.
    dense = request.min_quality == 100
    asked = f"policy: {request.policy!r}" if dense else f"quality: {request.min_quality}"
    return f"{asked} had no effect; it found nothing to skip"
