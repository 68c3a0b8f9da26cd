"""The parts of the scale study that measure, and those that go further than there are machines."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from musiva.core.types import Kind
from musiva.cost.work import FEATURES
from musiva.engine import Fleet, Front, Pipeline, Workers, load_pipeline
from musiva.engine.fleet import Threads
from musiva.perf.scale import Cluster, growth
from musiva.perf.scale.chart import PANELS, scale_chart
from musiva.perf.scale.growth import grown, published, ways
from musiva.perf.scale.outline import linear_and_pairs, outlines
from musiva.perf.scale.planning import plan_all
from musiva.perf.scale.replay import messages_take, replay
from musiva.perf.scale.validation import Plan, validate
from musiva.perf.traffic import Asked
from tests.costs import linear_cost
from tests.engine.fleets import fleet_of


@pytest.fixture(scope="module")
def pipeline(calibrated_model: Path) -> Pipeline:
    return load_pipeline(calibrated_model, device="cpu")


def test_a_trace_is_replayed_on_a_real_fleet(pipeline: Pipeline) -> None:
    trace = [Asked(at=0.05 * i, prompt="a fox", seed=i, size=(32, 32), steps=4) for i in range(5)]
    with fleet_of(pipeline, 2) as fleet:
        found = replay(fleet, trace)
        assert messages_take(fleet) > 0.0
    assert [fate.asked for fate in found.fates] == trace
    assert all(fate.seconds is not None and fate.seconds > 0.0 for fate in found.fates)
    assert not any(fate.refused for fate in found.fates)
    assert found.placing > 0.0


def test_a_simulation_is_held_against_a_real_fleet(pipeline: Pipeline) -> None:
    """The figure is of no meaning here, where workers are threads and the machine does other
    things; that all of it comes together is.
    """

    def fleet(workers: Workers, config: Front.Config) -> Fleet:
        return Fleet(pipeline, workers, config, model=pipeline.name, launcher=Threads(pipeline))

    plan = Plan(
        counts=(2,),
        turns=((True, "poisson", 0.5), (False, "bursty", 0.5)),
        seconds=0.5,
        times=2,
        sizes={(32, 32): 1.0, (48, 32): 1.0},
        steps=4,
        least=4,
    )
    cost = linear_cost(row=2e-4, step=2e-3, decode=5e-3)
    found = validate(pipeline, fleet, cost, ("a fox", "a whale", "a tree", "a cat"), plan)
    assert [row["what"] for row in found.rows] == ["fitted to", "held out", "this machine, fitted"]
    assert found.error == found.rows[1]["error"]
    for row in found.rows[:2]:
        assert row["measured_mean"] == statistics.median(row["measured_means"])  # type: ignore[arg-type]
        assert len(set(row["measured_means"])) == 2  # type: ignore[arg-type]
    assert found.cluster.placing > 0.0
    assert found.cluster.front.latency > 0.0


def test_planning_is_timed_on_workers_in_the_middle_of_things(pipeline: Pipeline) -> None:
    cost = linear_cost(row=1e-4, decode=0.0)
    found = plan_all(pipeline, cost, ("a fox", "a whale"), workers=3, each=4, times=3)
    assert found.requests[0] == 12
    assert len(found.steps) == len(found.placing) == len(found.hearing) == 3
    assert 0.0 < min(found.placing) < found.total < sum(found.steps) + sum(found.placing)
    assert [row["requests"] for row in found.rows(3)] == [12] * 4


def test_a_pace_divides_seconds_into_layers_and_attention() -> None:
    """Of one block of width 8 on 10 rows with 50 pairs: 24 * 64 * 10 and 4 * 8 * 50 operations."""
    cost = linear_and_pairs(2.0, rows=10, pairs=50, width=8, blocks=1)
    weights = dict(zip(FEATURES[Kind.DENOISE], cost.weights[Kind.DENOISE], strict=True))
    assert weights["rows"] * 10 + weights["pairs"] * 50 == pytest.approx(2.0)
    assert weights["rows"] / weights["pairs"] == pytest.approx(24 * 64 / 32)


def test_outlines_take_what_was_published() -> None:
    known = outlines()
    assert known["video"].seconds((832, 480)) == pytest.approx(50 * 6.13)
    assert known["clip"].seconds((856, 480)) == pytest.approx(26.54)
    assert known["picture"].seconds((1024, 1024)) == pytest.approx(4.30)
    assert known["picture"].seconds((512, 512)) < known["picture"].seconds((1024, 1024))


def test_a_clip_sends_what_was_published() -> None:
    """23.08 GB of dynamic sequence parallelism over eight devices, counted without leaving out what
    stays on its rank, and twice as much of Ulysses.
    """
    outline = outlines()["clip"]
    activations = outline.rows((856, 480)) * outline.sends.row
    dynamic = 2 * activations / 8 * outline.sends.switches * outline.evaluations
    assert dynamic == pytest.approx(23.08e9, rel=0.01)
    assert outline.sends.attentions == outline.sends.switches


def test_growth_is_told_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "LEAST", 8)
    monkeypatch.setattr(growth, "EACH", 1)
    outline = outlines()["clip"]
    rows = list(grown(outline, (8, 16), Cluster(placing=1e-3), changed_at=8))
    assert {row["what"] for row in rows} == {"extrapolated"}
    plain = [row for row in rows if row["changed"] == "nothing"]
    assert len(plain) == 2 * len(ways(outline)) - 2
    assert {row["changed"] for row in rows if row["way"] == "side by side"} == {
        "nothing",
        "compute x0.7",
        "compute x1.3",
        "bandwidth x0.5",
        "bandwidth x2",
        "latency x0.5",
        "latency x2",
    }
    side = next(row for row in plain if row["way"] == "side by side")
    assert side["throughput"] == pytest.approx(8 / 26.54)
    assert side["front_busy"] == pytest.approx(8e-3 / 26.54)
    by_way = {row["way"]: row for row in plain if row["devices"] == 8}
    # What is not sent takes no time.
    assert by_way["dynamic 8"]["throughput"] > by_way["ulysses 8"]["throughput"]  # type: ignore[operator]
    assert by_way["ulysses 8"]["latency_p50"] < by_way["side by side"]["latency_p50"]  # type: ignore[operator]
    # In halves each sends less, and begins as many exchanges.
    assert by_way["branches+ulysses 8"]["throughput"] > by_way["ulysses 8"]["throughput"]  # type: ignore[operator]
    drawn = scale_chart(plain)
    assert drawn.count("<polyline") == len(PANELS) * len(ways(outline))
    assert drawn.count("extrapolated") == len(PANELS)


def test_what_was_published_is_told_beside_what_is_foretold() -> None:
    rows = list(published(Cluster()))
    assert [row["work"] for row in rows] == ["picture", "video", "video"]
    for row in rows:
        assert 1.0 < row["simulated_speedup"] <= row["devices"]  # type: ignore[operator]
    # The one that the cost model was made from.
    assert rows[0]["simulated_speedup"] == pytest.approx(rows[0]["published_speedup"], rel=0.02)
