"""A step loop to step by hand, for tests of what happens between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from hypothesis import strategies as st
from torch import Tensor

from musiva.core.types import Action, DenoiseItem, Event, Kind, Level, StepPlan, StepResult
from musiva.engine import InlineExecutor, Intake, Scheduler, StepLoop
from musiva.engine import journal as engine_journal
from musiva.engine.journal import Entry, Resumption
from musiva.engine.pipeline import Pipeline
from musiva.policy import POLICIES, Policy
from musiva.store import Cache

__all__ = ["Bench", "Journal", "comings_and_goings"]


class Journal:
    """What was done at every evaluation, by sample; and the results of steps of the model."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}
        self.measured: dict[str, list[Mapping[str, float]]] = {}
        self.results: list[StepResult] = []

    def __call__(self, plan: StepPlan, result: StepResult) -> None:
        if plan.kind is not Kind.DENOISE:
            return
        self.results.append(result)
        for item, outcome in zip(plan.items, result.outcomes, strict=True):
            assert isinstance(item, DenoiseItem)
            if outcome.error is None:
                last = outcome.action or item.actions[-1]
                self.actions.setdefault(item.sample, []).extend([*item.actions[:-1], last])
                self.measured.setdefault(item.sample, []).append(outcome.measured)


def comings_and_goings(joins: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Events for `Bench.live`: requests out of `joins` that come and go, pages that are lost."""
    happening = st.one_of(
        st.tuples(st.just("join"), joins),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("evict"), st.integers(0, 5)),
        st.tuples(st.just("step"), st.integers(1, 4)),
    )
    return st.lists(happening, min_size=4, max_size=15)


class Bench:
    """A loop to step by hand, and the intake of an engine."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        max_rows: int = 4096,
        store_bytes: int = 1 << 24,
        told: Callable[[Entry], None] | None = None,
        cache: Cache | None = None,
        patches: int = 1,
        ranks: int = 1,
        **policies: type,
    ) -> None:
        """told: gets what others need to go on with requests, as often as there is anything. cache:
        of what was computed before. patches: as of `Front.Config`. ranks: as of the scheduler's.
        """
        self.journal = Journal()
        self.executor = InlineExecutor(pipeline, store_bytes=store_bytes, cache=cache)
        scheduler = Scheduler.Config(max_rows=max_rows, ranks=ranks).build()
        known = {**POLICIES, **policies}
        self.front = Intake(pipeline, tariff=scheduler.tariff, policies=known, patches=patches)
        entries = told and engine_journal.Journal(told, time.monotonic, every=0.0)
        self.loop = StepLoop(self.executor, scheduler, self.journal, journal=entries or None)
        self.pictures: dict[str, np.ndarray] = {}
        self.events: list[Event] = []

    def submit(
        self,
        name: str,
        by: Policy | None = None,
        resumed: Mapping[int, Resumption | None] | None = None,
        latents: Sequence[Tensor] | None = None,
        levels: Sequence[Level] = (),
        **options: object,
    ) -> None:
        """by: instead of the request's policy. levels: instead of those that follow from it."""
        options.setdefault("seed", 5)
        request = self.front.request(**options, request_id=name)
        if levels:
            request = replace(request, levels=tuple(levels))
        self.loop.submit(
            request,
            policies=[by] if by else self.front.policies_of(request),
            trip=self.front.trip_of(request),
            rows=self.front.rows_of(request),
            latents=latents,
            resumed=resumed,
        )

    def step(self) -> bool:
        """Whether there was anything to do; what is kept is checked after it."""
        events = self.loop.step()
        self.executor.check_integrity([*self.loop.state.samples, *self.loop.state.released])
        for event in events or []:
            self.events.append(event)
            if event.kind == "picture":
                self.pictures[f"{event.request}/{event.index}"] = event.picture
        return events is not None

    def run(self, steps: int | None = None) -> dict[str, np.ndarray]:
        while steps is None or steps > 0:
            if not self.step():
                break
            steps = None if steps is None else steps - 1
        return self.pictures

    def live(self, events: Sequence[tuple[str, Any]], join: Callable[[int, Any], object]) -> None:
        """Let happen what `comings_and_goings` drew, and run to the end; nothing is left then.
        join: submits the request of that number, given what was drawn for it.
        """
        joined, store = 0, self.executor.store
        for event, what in events:
            if event == "join":
                join(joined, what)
                joined += 1
            elif event == "leave":
                for name in self.loop.state.requests[what : what + 1]:
                    self.loop.cancel(name)
            elif event == "evict":
                for owner in store.owners[what : what + 1]:
                    store.free(owner)
            else:
                self.run(what)
        self.run()
        assert (self.executor.num_slots, store.owners) == (0, ())

    def failed(self) -> dict[str, Exception]:
        """Why requests failed, by request."""
        failed = [event for event in self.events if event.kind == "failed"]
        return {event.request: cast(Exception, event.error) for event in failed}

    def made(self, sample: str) -> Event:
        """The event that brought a picture."""
        request, _, index = sample.rpartition("/")
        (event,) = (
            event
            for event in self.events
            if (event.kind, event.request, event.index) == ("picture", request, int(index))
        )
        return event

    def held(self, sample: str) -> list[str | None]:
        return [action.held for action in self.journal.actions[sample]]
