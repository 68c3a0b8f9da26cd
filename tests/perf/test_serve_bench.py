"""Bench `serve` in small: its points, its strongest rival, and the queue of diffusers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musiva.engine import Engine, Pipeline, load_pipeline
from musiva.perf.benches import whole_picture
from musiva.perf.benches.contenders import CONTENDERS, OURS, WHOLE, contenders
from musiva.perf.benches.diffusers_queue import served_in_turn
from musiva.perf.benches.serve import KEYS, _figures
from musiva.perf.benches.serve_points import Point, Points, Setting
from musiva.perf.traffic import Asked, Score
from tests.costs import linear_cost

SETTING = Setting(
    prompts=("a red fox", "a blue whale", "two green apples", "an old bicycle"),
    sizes={(32, 32): 1.0, (48, 32): 1.0},
    steps=12,
    min_quality=1,
    arrivals=8,
    loads=(2.0,),
    scales=(4.0,),
)


@pytest.fixture(scope="module")
def pipeline(calibrated_model: Path) -> Pipeline:
    return load_pipeline(calibrated_model, device="cpu")


@pytest.fixture
def points(pipeline: Pipeline, tmp_path: Path) -> Points:
    found = Points(pipeline, linear_cost(row=1e-5, decode=1e-3), SETTING, tmp_path)
    found.prepare()
    return found


def test_points_are_measured_once(points: Points) -> None:
    assert len(points.dense) == SETTING.arrivals
    assert set(points.alone) == set(SETTING.sizes)
    assert points.rate > 0.0
    for contender in CONTENDERS:
        found = points.measured(contender, 2.0, 4.0)
        assert found.score.requests == SETTING.arrivals
        assert found.pace
        assert min(found.pace) > 0.0
        assert points.measured(contender, 2.0, 4.0) == found
    other = Points(points.pipeline, points.cost, replace(SETTING, seed=1), points.cache)
    # Beside them what the dense run takes alone.
    assert len(list(points.cache.glob("*.json"))) == len(CONTENDERS) + 1
    assert other.setting.digest("x") != SETTING.digest("x")


def test_dense_pictures_of_packs_are_those_made_alone(points: Points) -> None:
    assert points.same_alone(SETTING.arrivals) == SETTING.arrivals
    points.dense[1] = np.zeros_like(points.dense[1])
    assert points.same_alone(SETTING.arrivals) == SETTING.arrivals - 1


def test_what_was_interrupted_goes_on_where_it_was(points: Points) -> None:
    again = Points(points.pipeline, points.cost, SETTING, points.cache)
    again.prepare()
    assert again.rate == points.rate
    assert again.alone == points.alone
    assert all(map(np.array_equal, again.dense, points.dense))


def test_a_simulated_point_has_no_pictures_and_all_requests(points: Points) -> None:
    found = points.simulated(CONTENDERS[0], 2.0, 4.0)
    assert found.score.requests == SETTING.arrivals
    assert found.row("simulated")["contender"] == OURS
    # At half the pace it is later.
    slower = points.simulated(CONTENDERS[0], 2.0, 4.0, [2.0])
    assert slower.score.latency_p50 > found.score.latency_p50
    assert slower.row("simulated")["pace"] == 2.0


def test_the_rival_is_the_cheapest_that_keeps_the_floor(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_picture, "FEWER", (4, 8, 10))
    monkeypatch.setattr(whole_picture, "INTERVALS", (4, 2))
    asked = {"steps": 12, "size": (32, 32), "first_seed": 0}
    with Engine(pipeline) as engine:
        low, rows = whole_picture.cheapest(engine, SETTING.prompts, floor=-100.0, **asked)
        high, every = whole_picture.cheapest(engine, SETTING.prompts, floor=1000.0, **asked)
    # Nothing keeps what cannot be kept; anything keeps no floor, so the cheapest of each kind does.
    assert high == {}
    assert len(rows) == 2 * len(whole_picture.kinds(12))
    assert len(every) < len(rows)
    tried = [row["options"] for row in rows]
    assert {"steps": 4} in tried
    assert {"steps": 10} not in tried
    assert {"steps": 10} in [row["options"] for row in every]
    cheapest = min(rows, key=lambda row: row["seconds"])
    assert cheapest["options"] == low
    (rival,) = [one for one in contenders(low) if one.name == WHOLE]
    asked = Asked(at=0.0, prompt="a", seed=0, min_quality=60, max_quality=100, steps=12)
    (rewritten,) = rival.rewritten([asked])
    assert rewritten.min_quality is None
    assert {name: getattr(rewritten, name) for name in low} == dict(low)


def test_waiting_in_turn_is_exact() -> None:
    trace = [Asked(at=at, prompt="a", seed=0, deadline=2.5) for at in (0.0, 0.5, 1.0, 9.0)]
    assert served_in_turn(trace, [1.0, 1.0, 1.5, 3.0]) == [True, True, True, False]
    assert served_in_turn(trace, [2.0, 1.5, 1.5, 1.0]) == [True, False, False, True]
    free = [replace(asked, deadline=None) for asked in trace]
    assert served_in_turn(free, [9.0] * 4) == [True] * 4


def test_of_two_deadlines_the_lower_figure_counts() -> None:
    def point(name: str, load: float, scale: float, good: float) -> Point:
        score = Score(
            requests=10,
            goodput=good,
            attainment=good,
            on_time=good,
            kept=1.0,
            refused=0.0,
            latency_p50=None,
            latency_p95=None,
            quality=None,
            cost=None,
        )
        return Point(name, load, scale, score)

    ours = {(load, scale): 0.9 for load in (1.2, 2.0, 3.0, 4.0) for scale in (1.5, 4.0)}
    points = {(OURS, *key): point(OURS, *key, good) for key, good in ours.items()}
    rivals = {("edf_admission", 1.2, 1.5): 0.6, ("edf_admission", 1.2, 4.0): 0.8}
    rivals |= {(WHOLE, 3.0, 4.0): 0.95, (WHOLE, 4.0, 1.5): 0.91}
    points |= {key: point(*key, good) for key, good in rivals.items()}
    setting = replace(SETTING, loads=(1.2, 2.0, 3.0, 4.0), scales=(1.5, 4.0))
    figures = _figures(points, points, setting)
    assert figures["goodput_over_edf_dense_1.2"] == pytest.approx(0.9 / 0.8)
    assert figures["goodput_over_edf_dense_2.0"] is None
    assert figures["goodput_over_edf_whole_picture_3.0"] == pytest.approx(0.9 / 0.95)
    assert figures["attainment_3.0"] == 0.9
    assert figures["attainment_below_rival_points"] == 1
    assert figures["simulated_over_measured_goodput_low"] == 1.0
    assert {*figures, "goodput_over_diffusers_server"} == set(KEYS)
