"""Policies in the engine: what they skip, what they are told, and what a bad one can do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from musiva.core.errors import ExecutionFailed, InvalidInput
from musiva.core.types import COMPUTE, GATES, Action, DenoiseItem, Kind, StepPlan, StepResult
from musiva.engine import Engine, load_pipeline
from musiva.engine.pipeline import Pipeline
from musiva.policy import POLICIES, PROBES, Never, Trip

SIZE = (48, 32)


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@dataclass(frozen=True)
class Watch:
    """Computes by a mask, and remembers all that it is told."""

    probes = PROBES
    keep = 2

    def begin(self, trip: Trip) -> tuple[tuple[int, dict[str, float]], ...]:
        return ()

    def observe(self, trip: Trip, memory, evaluation, action, measured: Mapping[str, float]):
        return (*memory, (evaluation, dict(measured)))

    def act(self, trip: Trip, memory, evaluation: int) -> Action:
        return COMPUTE if evaluation in (0, 1, 4) else Action(False, 1)


class Broken(Never):
    """Fails in the way and at the time that it is made for."""

    how = "act"

    def begin(self, trip: Trip) -> None:
        if self.how == "begin":
            raise RuntimeError("no beginning")

    def observe(self, trip: Trip, memory, evaluation, action, measured) -> None:
        if self.how == "observe":
            raise RuntimeError("cannot look")

    def act(self, trip: Trip, memory, evaluation: int) -> Action:
        if self.how == "first" or (evaluation == 2 and self.how == "order"):
            return Action(False, 0)
        if evaluation == 2 and self.how == "borrow":
            return Action(compute=True, borrow=True, order=1)
        if evaluation == 2 and self.how == "type":
            return "compute"  # type: ignore[return-value]
        if evaluation == 2 and self.how == "act":
            return math.inf // 0  # type: ignore[return-value]
        return COMPUTE


def broken(kind: str) -> type[Broken]:
    return type("Broken", (Broken,), {"how": kind})


class Journal:
    def __init__(self) -> None:
        self.items: list[DenoiseItem] = []
        self.measured: list[Mapping[str, float]] = []
        self.rows: list[int] = []

    def __call__(self, plan: StepPlan, result: StepResult) -> None:
        if plan.kind is Kind.DENOISE:
            self.items += [item for item in plan.items if isinstance(item, DenoiseItem)]
            self.measured += [outcome.measured for outcome in result.outcomes]
            self.rows.append(result.rows)


def engine_with(pipeline: Pipeline, journal: Journal | None = None, **policies: type) -> Engine:
    config = Engine.Config(policies={**POLICIES, **policies})
    return Engine(pipeline, config, observe=journal)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++2m", "unipc"])
def test_an_interval_of_one_is_the_dense_run(pipeline: Pipeline, sampler: str) -> None:
    options = {"size": SIZE, "steps": 6, "seed": 1, "sampler": sampler}
    with engine_with(pipeline) as engine:
        (dense,) = engine.generate("a red fox", **options)
        (same,) = engine.generate("a red fox", policy="interval:interval=1,order=2", **options)
        (other,) = engine.generate("a red fox", policy="interval:interval=3,warmup=1", **options)
    assert np.array_equal(np.asarray(dense), np.asarray(same))
    assert not np.array_equal(np.asarray(dense), np.asarray(other))


def test_skipped_evaluations_take_no_forward(pipeline: Pipeline) -> None:
    journal = Journal()
    with engine_with(pipeline, journal, watch=Watch) as engine:
        options = {"size": SIZE, "steps": 8, "seed": 1, "guidance": 1.0, "policy": "watch"}
        events = list(engine.stream("a red fox", **options))
    actions = [item.actions for item in journal.items]
    assert [len(a) for a in actions] == [1, 1, 3, 3]
    assert [a[-1].compute for a in actions] == [True, True, True, False]
    assert journal.rows[:3] == [journal.rows[0]] * 3
    assert journal.rows[3] == 0
    told = [(e.evaluation, e.computed) for e in events if e.kind == "progress"]
    assert told == [(1, 1), (2, 2), (5, 3), (8, 3)]
    (picture,) = [e for e in events if e.kind == "picture"]
    assert (picture.evaluation, picture.computed) == (8, 3)


def test_a_borrowed_branch_halves_the_rows_and_keeps_the_picture_near(pipeline: Pipeline) -> None:
    options = {"size": SIZE, "steps": 8, "seed": 1, "guidance": 3.0}
    journal = Journal()
    with engine_with(pipeline, journal) as engine:
        dense, all_of_it, borrowed, held = (
            np.asarray(engine.generate("a red fox", policy=policy, **options)[0], np.float32)
            for policy in (
                "never",
                "interval:interval=1",
                "interval:interval=1,guidance=2",
                "interval:interval=2,warmup=1",
            )
        )
    rows = journal.rows[16:24]
    assert rows[1::2] == [rows[0] // 2] * 4
    assert rows[::2] == [rows[0]] * 4
    assert np.array_equal(dense, all_of_it)
    assert 0 < np.abs(dense - borrowed).mean() < np.abs(dense - held).mean()


def test_borrowing_without_guidance_is_refused(pipeline: Pipeline) -> None:
    options = {"size": SIZE, "steps": 5, "guidance": 1.0, "policy": "broken"}
    with (
        engine_with(pipeline, broken=broken("borrow")) as engine,
        pytest.raises(ExecutionFailed, match="without guidance"),
    ):
        engine.generate("a red fox", **options)


def test_what_is_measured_is_what_happened(pipeline: Pipeline) -> None:
    """The error of a forecast of order 0 is the change; probes come only where they can."""

    class Holds(Watch):
        keep = 1

    for policy, known in ((Watch, [{"scale"}, {"scale", "change", *GATES}]), (Holds, [{"scale"}])):
        journal = Journal()
        with engine_with(pipeline, journal, watch=policy) as engine:
            options = {"size": SIZE, "steps": 5, "policy": "watch", "seed": 2}
            if policy is Holds:
                with pytest.raises(ExecutionFailed, match="below 1"):
                    engine.generate("a red fox", **options)
                continue
            engine.generate("a red fox", **options)
        assert [set(m) for m in journal.measured[: len(known)]] == known
        last = journal.measured[2]
        assert set(last) == set(PROBES) - {"surprise"}
        assert all(value > 0 for value in last.values())
        assert last["forecast_error"] != last["change"]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("begin", "no beginning"),
        ("observe", "cannot look"),
        ("act", "evaluation 2"),
        ("type", "an Action"),
        ("order", "below 0"),
        ("first", "compute all at evaluation 0"),
        ("borrow", "below 0"),
    ],
)
def test_a_policy_that_fails_ends_its_own_request(pipeline: Pipeline, kind: str, told: str) -> None:
    options = {"size": SIZE, "steps": 5, "seed": 1}
    with engine_with(pipeline, broken=broken(kind)) as engine:
        good = engine.stream("a red fox", **options)
        with pytest.raises(ExecutionFailed, match=told):
            engine.generate("a red fox", policy="broken", **options)
        assert [e.kind for e in good][-2:] == ["picture", "done"]
        assert engine.num_waiting == 0


def test_an_unknown_policy_is_refused(pipeline: Pipeline) -> None:
    with engine_with(pipeline) as engine, pytest.raises(InvalidInput, match="never, interval"):
        engine.generate("a red fox", policy="sometimes")
