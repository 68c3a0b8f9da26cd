"""The request record, and the only code that changes it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from musiva.core.errors import ExecutionFailed
from musiva.core.types import (
    DecodeItem,
    DenoiseItem,
    EncodeItem,
    Event,
    Kind,
    Request,
    StepPlan,
    StepResult,
)

__all__ = ["EngineState", "SampleState", "Stage", "admit", "cancel", "update"]


class Stage(Enum):
    DENOISING = auto()
    DECODING = auto()


@dataclass(slots=True)
class SampleState:
    """One picture of a request on its way. rows: packed rows of all its branches, padding
    included.
    """

    id: str
    request: Request
    index: int
    num_evaluations: int
    rows: int
    fresh: bool
    evaluation: int = 0
    stage: Stage = Stage.DENOISING

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each branch, the conditional one first."""
        request = self.request
        return (request.prompt, request.negative_prompt) if request.guided else (request.prompt,)


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
    """Add the samples of one new request; their ids are new."""
    for sample in samples:
        if sample.id in state.samples:
            raise ValueError(f"sample {sample.id} is already there")
        state.samples[sample.id] = sample


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
            events.extend(_advance(state, state.samples[item.sample], plan.kind, outcome.picture))
    return events


def _requests_of(state: EngineState, item: EncodeItem | DenoiseItem | DecodeItem) -> list[str]:
    if isinstance(item, EncodeItem):
        waiting = (s for s in state.samples.values() if item.prompt in s.prompts)
        return list(dict.fromkeys(s.request.id for s in waiting))
    sample = state.samples.get(item.sample)
    return [] if sample is None else [sample.request.id]


def _advance(
    state: EngineState, sample: SampleState, kind: Kind, picture: object | None
) -> Iterator[Event]:
    at = (sample.request.id, sample.index, sample.num_evaluations)
    if kind is Kind.DENOISE:
        for prompt in sample.prompts:
            state.texts.move_to_end(prompt)
        sample.fresh = False
        sample.evaluation += 1
        if sample.evaluation == sample.num_evaluations:
            sample.stage = Stage.DECODING
        yield Event(at[0], "progress", at[1], sample.evaluation, at[2])
        if picture is not None:
            yield Event(at[0], "preview", at[1], sample.evaluation, at[2], picture)
        return
    if picture is None:
        raise ExecutionFailed(f"sample {sample.id}: decoding brought no picture")
    del state.samples[sample.id]
    yield Event(at[0], "picture", at[1], at[2], at[2], picture)
    if not state.of(at[0]):
        yield Event(at[0], "done")
