"""Scheduling: pure, fair to the oldest, and written down in plain values."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from musiva.core.types import Kind, Outcome, Path, Request, StepResult
from musiva.engine.sample import SampleState, observe
from musiva.engine.scheduler import Scheduler
from musiva.engine.state import EngineState, admit, cancel, update
from musiva.policy import Never, Trip


def sample(i: int, *, steps: int = 3, rows: int = 64, guidance: float = 2.0) -> SampleState:
    request = Request(
        id=f"r{i}",
        prompt=f"prompt {i % 3}",
        size=(32, 32),
        path=Path(steps=steps),
        seed=i,
        guidance=guidance,
    )
    trip = Trip(tuple(range(steps, 0, -1)), (1.0,) * steps, (0.0,) * steps)
    made = SampleState(f"r{i}/0", request, 0, rows, True, (Never(),), trip, due=float(i))
    assert observe(made) is None
    return made


def run_null(state: EngineState, scheduler: Scheduler) -> list:
    """Runs all plans on a device that does nothing; returns them."""
    plans = []
    while (plan := scheduler.schedule(state, 0.0)) is not None:
        plans.append(plan)
        outcomes = tuple(
            Outcome(picture=0 if plan.kind is Kind.DECODE else None) for _ in plan.items
        )
        update(state, plan, StepResult(plan.number, outcomes, 0.0), 0.0)
        assert len(plans) < 10_000
    return plans


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(16, 600), st.floats(1, 3)), min_size=1, max_size=9
    ),
    st.integers(1, 1000),
)
def test_everything_ends_and_nothing_waits_for_a_younger_one(samples, max_rows: int) -> None:
    state = EngineState()
    for i, (steps, rows, guidance) in enumerate(samples):
        admit(state, [sample(i, steps=steps, rows=rows, guidance=guidance)])
    scheduler = Scheduler.Config(max_rows=max_rows).build()
    unfinished = {f"r{i}/0": steps for i, (steps, _, _) in enumerate(samples)}
    for plan in run_null(state, scheduler):
        if plan.kind is not Kind.DENOISE:
            continue
        oldest = next(name for name, left in unfinished.items() if left)
        assert plan.items[0].sample == oldest
        assert (
            len(plan.items) == 1
            or sum(samples[int(i.sample[1:-2])][1] for i in plan.items) <= max_rows
        )
        for item in plan.items:
            unfinished[item.sample] -= 1
    assert not any(unfinished.values())
    assert not state.samples
    assert not state.released


def test_planning_changes_nothing_and_repeats() -> None:
    state = EngineState()
    admit(state, [sample(0)])
    before = copy.deepcopy(state)
    scheduler = Scheduler.Config().build()
    assert scheduler.schedule(state, 0.0) == scheduler.schedule(state, 0.0)
    assert state == before


def test_plans_are_plain_values() -> None:
    state = EngineState()
    for i in range(3):
        admit(state, [sample(i)])
    for plan in run_null(state, Scheduler.Config().build()):
        assert json.loads(json.dumps(asdict(plan)))["number"] == plan.number


def test_prompts_are_encoded_once_and_dropped_when_no_one_needs_them() -> None:
    state = EngineState()
    for i in range(6):
        admit(state, [sample(i)])
    scheduler = Scheduler.Config(kept_texts=1).build()
    plans = run_null(state, scheduler)
    encoded = [item.prompt.text for p in plans if p.kind is Kind.ENCODE for item in p.items]
    assert sorted(encoded) == ["", "prompt 0", "prompt 1", "prompt 2"]
    admit(state, [sample(9)])
    run_null(state, scheduler)
    assert len(state.texts) <= 4


def test_a_cancelled_sample_is_released_by_the_next_plan() -> None:
    state, scheduler = EngineState(), Scheduler.Config().build()
    admit(state, [sample(0)])
    assert cancel(state, "r0")
    assert not cancel(state, "r0")
    plan = scheduler.schedule(state, 0.0)
    assert plan is not None
    assert plan.release == ("r0/0",)
    update(state, plan, StepResult(plan.number, (), 0.0), 0.0)
    assert scheduler.schedule(state, 0.0) is None


def test_a_result_for_a_cancelled_sample_is_ignored() -> None:
    """A step may end after its request was cancelled: the record does not bring it back."""
    state, scheduler = EngineState(), Scheduler.Config().build()
    admit(
        state,
        [
            sample(0),
        ],
    )
    run = scheduler.schedule(state, 0.0)
    assert run is not None
    update(state, run, StepResult(run.number, tuple(Outcome() for _ in run.items), 0.0), 0.0)
    step = scheduler.schedule(state, 0.0)
    assert step is not None
    cancel(state, "r0")
    assert update(state, step, StepResult(step.number, (Outcome(),), 0.0), 0.0) == []
    assert not state.samples
