"""Fleets in simulated time: against one engine in simulated time, against arithmetic, and against
what they promise when workers die.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from musiva.engine import Intake, Pipeline, Scheduler, Workers, load_pipeline
from musiva.engine.scheduler.prices import Tariff
from musiva.perf.scale import Cluster, Death, Link, Setting, simulate_fleet
from musiva.perf.scale.fitting import Run, Times, fitted
from musiva.perf.scale.serving import simulate_workers
from musiva.perf.traffic import Asked, Mix, Wanted, make_trace, score, simulate
from tests.costs import linear_cost

ROW, DECODE = 1e-3, 0.02
STEPS = 10
# Of a guided picture of 32 x 32: 16 tokens in each branch.
ALONE = STEPS * 32 * ROW + DECODE


@pytest.fixture(scope="module")
def pipeline(calibrated_model: Path) -> Pipeline:
    return load_pipeline(calibrated_model, device="cpu")


def setting(count: int, **cluster: object) -> Setting:
    return Setting(
        workers=Workers(count=count, losses=100),
        cluster=Cluster(devices=count, **cluster),  # type: ignore[arg-type]
        scheduler=Scheduler.Config(cost=linear_cost(row=ROW, decode=DECODE)),
    )


def wanted(pipeline: Pipeline, trace: Sequence[Asked]) -> list[Wanted]:
    intake = Intake(pipeline, tariff=Tariff(linear_cost(row=ROW, decode=DECODE)))
    return [Wanted.of(intake, f"t{i}", asked) for i, asked in enumerate(trace)]


def at_once(pipeline: Pipeline, count: int) -> list[Wanted]:
    """That many pictures of one size, all asked for at the beginning."""
    asked = [
        Asked(at=0.0, prompt="a fox", seed=i, size=(32, 32), steps=STEPS) for i in range(count)
    ]
    return wanted(pipeline, asked)


def drawn(count: int = 60, load: float = 1.5, **more: object) -> list[Asked]:
    mix = Mix(
        prompts=("a fox", "a blue whale"),
        sizes={(32, 32): 2.0, (48, 32): 1.0},
        steps=STEPS,
        **more,  # type: ignore[arg-type]
    )
    return make_trace("bursty", mix, rate=load / ALONE, count=count, seed=4)


@pytest.mark.parametrize("quality", [{}, {"min_quality": 60, "max_quality": 100}])
def test_one_worker_does_what_one_engine_does(pipeline: Pipeline, quality: dict) -> None:
    trace = drawn(**quality)
    config = Scheduler.Config(cost=linear_cost(row=ROW, step=2e-3, decode=DECODE))
    alone, _ = simulate(pipeline, config, trace)
    one = Setting(workers=Workers(count=1), cluster=Cluster(), scheduler=config)
    found, _ = simulate_workers(pipeline, one, trace)
    assert [asdict(fate) for fate in found] == [asdict(fate) for fate in alone]


def test_two_workers_make_twice_as_much(pipeline: Pipeline) -> None:
    trace = at_once(pipeline, 8)
    one, two = (simulate_fleet(setting(count), trace) for count in (1, 2))
    assert one.seconds == pytest.approx(8 * ALONE)
    assert two.seconds == pytest.approx(4 * ALONE)
    assert one.busy == pytest.approx(two.busy)


@pytest.mark.parametrize(("cores", "times"), [(4, 1.0), (2, 2.0), (1, 4.0)])
def test_workers_share_the_cores_of_a_node(pipeline: Pipeline, cores: int, times: float) -> None:
    found = simulate_fleet(setting(4, cores=cores), at_once(pipeline, 4))
    assert found.seconds == pytest.approx(times * ALONE)


def test_a_core_that_gets_free_is_used_by_who_is_left(pipeline: Pipeline) -> None:
    """Two on one core: the shorter one ends after twice its time, and the other goes on alone."""
    short, long = at_once(pipeline, 2)
    half = Asked(at=0.0, prompt="a fox", seed=0, size=(32, 32), steps=STEPS // 2)
    (short,) = wanted(pipeline, [half])
    long = replace(long, request=replace(long.request, id="long"))
    found = simulate_fleet(setting(2, cores=1), [short, long])
    small = STEPS // 2 * 32 * ROW + DECODE
    ends = [fate.seconds for fate in found.fates]
    assert ends == pytest.approx([2 * small, small + ALONE])


def test_messages_and_whoever_takes_requests_take_their_time(pipeline: Pipeline) -> None:
    found = simulate_fleet(
        setting(2, front=Link(latency=0.003), placing=0.05), at_once(pipeline, 2)
    )
    ends = [fate.seconds for fate in found.fates]
    assert ends == pytest.approx([0.05 + 0.006 + ALONE, 0.10 + 0.006 + ALONE])


def test_what_a_step_takes_beside_its_execution(pipeline: Pipeline) -> None:
    """Of an encoding, the evaluations, and a decoding; prompts cost nothing by themselves."""
    (fate,) = simulate_fleet(setting(1, step=0.01), at_once(pipeline, 1)).fates
    assert fate.seconds == pytest.approx(ALONE + (STEPS + 2) * 0.01)
    assert fate.report is not None
    assert fate.report.denoise == pytest.approx(STEPS * 32 * ROW)


DEATHS = (Death(0.4, 0, 0.5), Death(0.9, 1, 0.3), Death(1.0, 2, 2.0), Death(1.4, 0, 0.1))


@pytest.mark.parametrize("deaths", [(), DEATHS])
def test_every_request_ends_once_and_the_same_again(
    pipeline: Pipeline, deaths: Sequence[Death]
) -> None:
    trace = wanted(pipeline, drawn(load=3.0))
    fleet = setting(3, cores=2, front=Link(latency=0.001), step=0.001)
    first, again = (simulate_fleet(fleet, trace, deaths) for _ in range(2))
    assert json.dumps(asdict(first)) == json.dumps(asdict(again))
    assert first.ends == [1] * len(trace)
    assert all(fate.seconds is not None for fate in first.fates)
    assert first.failed == 0
    if deaths:
        assert first.seconds > simulate_fleet(fleet, trace).seconds


def test_what_waits_goes_to_a_worker_that_comes_back(pipeline: Pipeline) -> None:
    trace = at_once(pipeline, 8)
    found = simulate_fleet(setting(2), trace, [Death(0.05, 1, 1.0)])
    assert found.ends == [1] * 8
    assert found.moved > 0
    # About half of what was left then: seven pictures, less three that were made meanwhile.
    assert 1.05 + 2 * ALONE < found.seconds < 1.05 + 4 * ALONE


def test_all_workers_may_be_gone_for_a_while(pipeline: Pipeline) -> None:
    deaths = [Death(0.1, number, 5.0) for number in range(2)]
    found = simulate_fleet(setting(2), at_once(pipeline, 4), deaths)
    assert found.ends == [1] * 4
    assert found.seconds > 5.0


def test_what_ends_worker_after_worker_fails(pipeline: Pipeline) -> None:
    one = Setting(
        workers=Workers(count=1, losses=2),
        cluster=Cluster(),
        scheduler=Scheduler.Config(cost=linear_cost(row=ROW, decode=DECODE)),
    )
    deaths = [Death(at, 0, 0.01) for at in (0.01, 0.13)]
    found = simulate_fleet(one, at_once(pipeline, 1), deaths)
    assert (found.failed, found.ends) == (1, [1])
    assert found.fates[0].seconds is None


def test_what_nobody_can_have_done_in_time_is_refused_once(pipeline: Pipeline) -> None:
    trace = drawn(count=12, deadlines={(32, 32): 0.01, (48, 32): 0.01})
    found = simulate_fleet(setting(3), wanted(pipeline, trace))
    assert all(fate.refused for fate in found.fates)
    assert found.ends == [1] * 12
    assert found.steps == 0


def test_more_workers_keep_more_deadlines(pipeline: Pipeline) -> None:
    trace = drawn(deadlines={(32, 32): 2 * ALONE, (48, 32): 3 * ALONE})
    few, many = (score(*simulate_workers(pipeline, setting(n), trace)) for n in (1, 6))
    assert few.attainment < 0.8
    assert many.attainment > 0.9


def test_what_a_machine_adds_is_found_again(pipeline: Pipeline) -> None:
    """From what fleets on a cluster that is made up took."""
    scheduler = Scheduler.Config(cost=linear_cost(row=ROW, decode=DECODE))
    true = Cluster(devices=4, cores=2, rate=0.85, company=0.2, step=2e-3)
    runs = []
    for count in (2, 4):
        workers, trace = Workers(count=count), wanted(pipeline, drawn(count=12, load=1.0))
        made = Setting(workers=workers, cluster=true, scheduler=scheduler)
        runs.append(Run(workers, trace, Times.of(simulate_fleet(made, trace).fates)))
    found = fitted(runs, Cluster(devices=4, cores=2, company=0.1, step=1e-3), scheduler)
    unseen = wanted(pipeline, drawn(count=20, load=1.2))
    for count in (2, 4):
        there = [
            simulate_fleet(
                Setting(workers=Workers(count=count), cluster=one, scheduler=scheduler), unseen
            )
            for one in (true, found)
        ]
        expected, guessed = (Times.of(course.fates).mean for course in there)
        assert guessed == pytest.approx(expected, rel=0.05)
