"""Requests that let load choose their quality, on a real model of a few thousand weights."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.costs import linear_cost
from tests.stepping import Journal

from musiva.core.errors import ExecutionFailed, InvalidInput, Overloaded
from musiva.core.types import Event, Level
from musiva.engine import (
    LATENCIES,
    Engine,
    InlineExecutor,
    Intake,
    Pipeline,
    Scheduler,
    StepLoop,
    load_pipeline,
)
from musiva.perf.benches.company import replay_of
from musiva.perf.quality import psnr
from musiva.perf.traffic import VirtualClock
from musiva.policy import Adaptive, Never, levels_between

SIZE = (48, 32)
STEPS = 20
ASK = {"size": SIZE, "steps": STEPS, "guidance": 3.0, "seed": 3}


@pytest.fixture(scope="module")
def pipeline(calibrated_model: Path) -> Pipeline:
    return load_pipeline(calibrated_model, device="cpu")


@pytest.fixture(scope="module")
def floor(pipeline: Pipeline) -> int:
    """A quality of which the tiny model's calibration has several levels above."""
    calibration = pipeline.calibration
    assert calibration is not None
    for quality in range(1, 99):
        if len(levels_between(quality, 100, calibration, STEPS)) >= 3:
            return quality
    raise AssertionError("the calibration has no levels")


class Site:
    """A loop over the real executor, in a time that a test moves."""

    def __init__(self, pipeline: Pipeline, **config) -> None:
        self.clock, self.journal = VirtualClock(), Journal()
        scheduler = Scheduler.Config(cost=linear_cost(), **config).build()
        self.executor = InlineExecutor(pipeline)
        self.loop = StepLoop(self.executor, scheduler, self.journal, self.clock.now)
        self.intake = Intake(pipeline, tariff=scheduler.tariff)
        self.pictures: dict[str, Event] = {}

    def submit(self, name: str, policies=None, **asked) -> None:
        request = self.intake.request("a red fox", **{**ASK, **asked}, request_id=name)
        self.loop.submit(
            request,
            policies=policies or self.intake.policies_of(request),
            trip=self.intake.trip_of(request),
            rows=self.intake.rows_of(request),
        )

    def run(self, steps: int = 10**6) -> None:
        for _ in range(steps):
            events = self.loop.step()
            self.executor.check_integrity([*self.loop.state.samples, *self.loop.state.released])
            if events is None:
                return
            for event in events:
                assert event.error is None, event.error
                if event.kind == "picture":
                    self.pictures[event.request] = event


def alone(pipeline: Pipeline, **asked) -> Event:
    site = Site(pipeline)
    site.submit("alone", **asked)
    site.run()
    return site.pictures["alone"]


def test_floor_and_ceiling_make_levels(pipeline: Pipeline, floor: int) -> None:
    intake = Site(pipeline).intake
    request = intake.request("a fox", min_quality=floor, max_quality=100, **ASK)
    qualities = [level.quality for level in request.levels]
    assert qualities == sorted(qualities, reverse=True)
    assert (request.min_quality, request.max_quality) == (floor, 100)
    tolerances = [policy.tolerance for policy in intake.policies_of(request)]  # type: ignore[attr-defined]
    assert tolerances == sorted(tolerances)
    assert tolerances[0] == 0.0
    (only,) = intake.request("a fox", min_quality=floor, **ASK).levels
    assert only == intake.request("a fox", quality=floor, **ASK).levels[0]
    assert only == request.levels[-1]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"min_quality": 80, "max_quality": 60}, "max_quality: got 60; allowed: from 80"),
        ({"max_quality": 90}, "max_quality: got 90; allowed: only beside"),
        ({"quality": 70, "min_quality": 60}, "min_quality: got 60; allowed: 70"),
        ({"min_quality": 0}, "min_quality: got 0"),
        ({"min_quality": 60, "max_quality": 101}, "max_quality: got 101"),
        ({"deadline": -1.0}, "deadline: got -1.0; allowed: seconds from now; this is in the past"),
        ({"deadline": 0}, "deadline: got 0; allowed: .* in the past"),
        ({"deadline": float("nan")}, "deadline: got nan"),
        ({"deadline": "soon"}, "deadline: got 'soon'"),
        ({"priority": 101}, "priority: got 101"),
        ({"tenant": 7}, "tenant: got 7"),
        ({"latency": "fast"}, "latency: got 'fast'; allowed: interactive, standard"),
        ({"latency": "batch", "deadline": 1.0}, "latency: got 'batch'; allowed: none beside"),
        ({"min_quality": 60, "max_quality": 100, "policy": "never"}, "policy: got 'never'"),
    ],
)
def test_what_contradicts_itself_is_refused(pipeline: Pipeline, asked: dict, told: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{told}"):
        Site(pipeline).intake.request("a fox", **asked)


def test_tenants_may_be_named_beforehand(pipeline: Pipeline) -> None:
    intake = Intake(pipeline, tariff=Site(pipeline).intake.tariff, tenants=("a", "b"))
    assert intake.request("a fox", tenant="b").tenant == "b"
    with pytest.raises(InvalidInput, match=r"^tenant: got 'c'; allowed: a, b"):
        intake.request("a fox", tenant="c")


def test_latencies_are_multiples_of_the_dense_run_alone(pipeline: Pipeline) -> None:
    intake = Site(pipeline).intake
    request = intake.request("a fox", **ASK)
    dense = intake.seconds_alone(request)
    assert dense == pytest.approx(STEPS * intake.rows_of(request) * 1e-3 + 0.02)
    for latency, factor in LATENCIES.items():
        asked = intake.request("a fox", latency=latency, **ASK).deadline
        assert asked == (None if factor is None else pytest.approx(factor * dense))


def test_with_time_enough_it_is_the_dense_run_to_the_byte(pipeline: Pipeline, floor: int) -> None:
    dense = alone(pipeline)
    free = alone(pipeline, min_quality=floor, max_quality=100, deadline=1000.0)
    assert np.array_equal(free.picture, dense.picture)
    assert free.report is not None
    assert (free.report.promised, free.report.used) == (floor, 100)
    assert free.warning is None


def test_at_its_floor_it_is_the_picture_of_that_quality(pipeline: Pipeline, floor: int) -> None:
    """Always at one level, a request of several is that of the one."""
    fixed = alone(pipeline, min_quality=floor)
    pressed = Site(pipeline)
    pressed.submit("r", min_quality=floor, max_quality=100)
    for sample in pressed.loop.state.samples.values():
        sample.policies = sample.policies[-1:] * len(sample.policies)
    pressed.run()
    assert np.array_equal(pressed.pictures["r"].picture, fixed.picture)


def test_levels_change_on_the_way_and_the_journal_tells(pipeline: Pipeline, floor: int) -> None:
    """Time is lost half way: what is left is done at a lower level. The actions give the same bytes
    again, and more exactly than all at the floor.
    """
    site = Site(pipeline)
    dense = site.intake.seconds_alone(site.intake.request("a fox", **ASK))
    site.submit("r", min_quality=floor, max_quality=100, deadline=1.7 * dense)
    site.run(6)
    site.clock.advance(1.45 * dense)
    site.run()
    made = site.pictures["r"]
    assert made.report is not None
    assert made.report.used < 100
    assert 0 < sum(not action.compute for action in made.actions) < STEPS - 4
    again = Site(pipeline)
    again.submit("r", [replay_of(Adaptive(), made.actions)])
    again.run()
    assert np.array_equal(again.pictures["r"].picture, made.picture)
    whole, coarse = alone(pipeline).picture, alone(pipeline, min_quality=floor).picture
    assert psnr(made.picture, whole) >= psnr(coarse, whole) - 0.5


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.floats(0.3, 6.0),
            st.sampled_from(["levels", "dense", "interval", "first_block"]),
            st.integers(0, 6),
            st.floats(0.0, 0.5),
        ),
        min_size=1,
        max_size=7,
    )
)
def test_mixtures_leave_nothing_behind(pipeline: Pipeline, floor: int, requests) -> None:
    """Joins at any time, refusals, cancels half way, jumps of the clock: all ends, and the store
    and the slots are empty.
    """
    site, names = Site(pipeline, max_rows=256), (f"r{i}" for i in itertools.count())
    asks = {
        "levels": {"min_quality": floor, "max_quality": 100},
        "dense": {},
        "interval": {"policy": "interval:interval=3"},
        "first_block": {"policy": "first_block:threshold=0.2"},
    }
    dense = site.intake.seconds_alone(site.intake.request("a fox", **ASK))
    for scale, kind, steps, jump in requests:
        name = next(names)
        try:
            site.submit(name, **asks[kind], deadline=scale * dense)
        except Overloaded:
            continue
        site.run(steps)
        site.clock.advance(jump)
        if steps == 5:
            site.loop.cancel(name)
    site.run()
    assert site.executor.num_slots == 0
    assert not site.executor.store.owners


def test_quality_100_does_not_depend_on_load(pipeline: Pipeline, floor: int) -> None:
    dense = alone(pipeline)
    site = Site(pipeline)
    for i in range(4):
        site.submit(f"other{i}", min_quality=floor, max_quality=100, deadline=30.0, seed=i)
    site.submit("r", deadline=60.0)
    site.run(3)
    site.submit("late", min_quality=floor, max_quality=100, deadline=30.0)
    site.run()
    assert np.array_equal(site.pictures["r"].picture, dense.picture)


def test_levels_that_keep_different_things_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ExecutionFailed, match="ask for different things"):
        Site(pipeline).submit("r", [Adaptive(), Never()])


def test_an_engine_tells_that_it_has_no_time(calibrated_model: Path, floor: int) -> None:
    config = Engine.Config(scheduler=Scheduler.Config(cost=linear_cost(row=1.0)))
    with Engine.load(calibrated_model, config, device="cpu") as engine:
        with pytest.raises(Overloaded, match="deadline") as refused:
            engine.generate("a fox", deadline=0.5, min_quality=floor, max_quality=100, **ASK)
        assert refused.value.finish is not None
        assert refused.value.finish > 0.5
        request = engine.request("a fox", min_quality=floor, max_quality=100, deadline=9.0, **ASK)
        estimates = engine.estimates(request)
        assert [one.quality for one in estimates] == [lv.quality for lv in request.levels]
        assert all(a.work >= b.work for a, b in itertools.pairwise(estimates))
        assert engine.standing().refused == 1


def test_without_a_profile_nobody_is_refused(calibrated_model: Path, floor: int) -> None:
    with Engine.load(calibrated_model, device="cpu") as engine:
        stream = engine.stream("a fox", deadline=1e-3, min_quality=floor, max_quality=100, **ASK)
        (made,) = (event for event in stream if event.kind == "picture")
    assert made.report is not None
    assert made.report.deadline_met is False
    assert made.report.used == floor


def test_level_names_are_policies(pipeline: Pipeline, floor: int) -> None:
    request = Site(pipeline).intake.request("a fox", min_quality=floor, max_quality=100, **ASK)
    assert request.policy == f"{request.levels[0].policy} to {request.levels[-1].policy}"
    assert request.levels[0] == Level("adaptive:tolerance=0.0,caution=1", 100)
