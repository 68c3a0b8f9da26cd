"""Traces, and what becomes of them in simulated time."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from musiva.core.errors import InvalidInput
from musiva.core.types import Report
from musiva.engine import Pipeline, Scheduler, load_pipeline
from musiva.perf.traffic import (
    SHAPES,
    Asked,
    Fate,
    Mix,
    Pace,
    make_trace,
    read_trace,
    scaled,
    score,
    simulate,
    write_trace,
)
from musiva.perf.traffic.chart import goodput_chart
from tests.costs import linear_cost

MIX = Mix(
    prompts=("a fox", "a blue whale"),
    sizes={(32, 32): 2.0, (48, 32): 1.0},
    deadlines={(32, 32): 1.0, (48, 32): 1.5},
    min_quality=60,
    max_quality=100,
)


@pytest.fixture(scope="module")
def pipeline(calibrated_model: Path) -> Pipeline:
    return load_pipeline(calibrated_model, device="cpu")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_trace_has_its_rate_and_is_the_same_again(shape: str) -> None:
    trace = make_trace(shape, MIX, rate=4.0, count=3000, seed=7)
    assert trace == make_trace(shape, MIX, rate=4.0, count=3000, seed=7)
    assert trace != make_trace(shape, MIX, rate=4.0, count=3000, seed=8)
    assert all(a.at <= b.at for a, b in pairwise(trace))
    assert 3000 / trace[-1].at == pytest.approx(4.0, rel=0.15)
    wide = sum(asked.size == (48, 32) for asked in trace) / len(trace)
    assert wide == pytest.approx(1 / 3, abs=0.05)
    assert {asked.deadline for asked in trace} == {1.0, 1.5}


def test_requests_do_not_depend_on_the_rate() -> None:
    slow, fast = (make_trace("poisson", MIX, rate=r, count=50, seed=1) for r in (1.0, 8.0))
    assert scaled(slow, faster=8.0) == [
        Asked(**{**{f: getattr(b, f) for f in b.__slots__}, "at": pytest.approx(b.at)})
        for b in fast
    ]


def test_bursts_come_in_bursts() -> None:
    """The variance of counts in windows tells the shapes apart: a Poisson process has that of its
    mean.
    """
    spread = {}
    for shape in SHAPES:
        trace = make_trace(shape, MIX, rate=1.0, count=4000, seed=3)
        counts = [0] * (int(trace[-1].at / 20) + 1)
        for asked in trace:
            counts[int(asked.at / 20)] += 1
        spread[shape] = statistics.variance(counts[:-1]) / statistics.fmean(counts[:-1])
    assert 0.7 < spread["poisson"] < 1.4
    assert spread["bursty"] > 3.0
    assert spread["diurnal"] > 3.0


@pytest.mark.parametrize(
    ("change", "told"),
    [({"shape": "flat"}, "shape"), ({"rate": 0.0}, "rate"), ({"count": 0}, "count")],
)
def test_what_no_trace_can_be_is_refused(change: dict, told: str) -> None:
    asked = {"shape": "poisson", "rate": 1.0, "count": 5, "seed": 0, **change}
    with pytest.raises(InvalidInput, match=f"^{told}: got"):
        make_trace(asked.pop("shape"), MIX, **asked)


def test_a_trace_comes_back_as_it_was(tmp_path: Path) -> None:
    trace = make_trace("bursty", MIX, rate=2.0, count=20, seed=0)
    write_trace(trace, tmp_path / "t.jsonl")
    assert read_trace(tmp_path / "t.jsonl") == trace


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "trace line 2"),
        ('{"at": 1}', "trace line 2"),
        ('{"at": 1, "prompt": "a", "colour": 1}', "trace line 2"),
        ('{"at": -1, "prompt": "a"}', "trace line 2: at"),
        ('{"at": 1, "prompt": "a", "size": "big"}', "trace line 2: size"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"at": 0, "prompt": "a"}) + "\n" + line + "\n")
    with pytest.raises(InvalidInput, match=f"^{told}: got"):
        read_trace(path)


def test_a_missing_or_empty_trace_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="trace"):
        read_trace(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InvalidInput, match="at least one"):
        read_trace(tmp_path / "empty")


def fate(seconds: float | None, deadline: float | None = 1.0, *, refused: bool = False) -> Fate:
    report = None
    if seconds is not None:
        report = Report(
            promised=60,
            used=80,
            seconds=seconds,
            encode=0.0,
            denoise=0.0,
            decode=0.0,
            deadline_met=None,
        )
    asked = Asked(at=1.0, prompt="a", seed=0, deadline=deadline)
    return Fate(asked, refused=refused, seconds=seconds, report=report)


def test_a_score_counts_what_is_on_time_and_kept() -> None:
    fates = [fate(0.5), fate(1.5), fate(None, refused=True), fate(9.0, None)]
    found = score(fates, [1.0, 1.0, 0.0, 0.5])
    assert found.attainment == pytest.approx(1.5 / 4)
    assert (found.on_time, found.refused) == (0.5, 0.25)
    assert found.kept == pytest.approx(0.75)
    assert found.goodput == pytest.approx(1.5 / (1.0 * 4 / 3))
    assert found.quality == 80


def run(pipeline: Pipeline, discipline: str, load: float, scale: float = 4.0):
    """A trace at so many times what this made up machine can do densely."""
    cost = linear_cost()
    alone = 20 * 32 * 1e-3 + 0.02
    mix = Mix(
        prompts=("a fox",),
        sizes={(32, 32): 1.0},
        deadlines={(32, 32): scale * alone},
        steps=20,
        min_quality=60 if discipline == "goodput" else None,
        max_quality=100 if discipline == "goodput" else None,
    )
    trace = make_trace("poisson", mix, rate=load / alone, count=120, seed=5)
    config = Scheduler.Config(discipline=discipline, cost=cost)
    return score(*simulate(pipeline, config, trace))


def test_quality_gives_way_before_deadlines_do(pipeline: Pipeline) -> None:
    calm, busy, full = (run(pipeline, "goodput", load) for load in (0.3, 1.5, 2.5))
    assert calm.quality is not None
    assert busy.quality is not None
    assert calm.quality > busy.quality
    assert calm.on_time > 0.99
    assert busy.on_time > 0.95
    dense = run(pipeline, "edf_admission", 2.5)
    assert full.on_time > 1.5 * dense.on_time
    # What was let in came on time.
    assert dense.on_time + dense.refused == pytest.approx(1.0, abs=0.03)


def test_rivals_do_as_they_are_known_to(pipeline: Pipeline) -> None:
    found = {
        name: run(pipeline, name, 1.3)
        for name in ("fifo", "shortest", "edf", "edf_admission", "static")
    }
    assert found["edf_admission"].on_time > found["edf"].on_time
    assert found["edf_admission"].on_time > found["fifo"].on_time
    assert all(one.refused == 0.0 for name, one in found.items() if name != "edf_admission")


def test_a_simulation_repeats(pipeline: Pipeline) -> None:
    assert run(pipeline, "goodput", 1.2) == run(pipeline, "goodput", 1.2)


def test_a_chart_is_drawn(tmp_path: Path) -> None:
    rows = [
        {"scheduler": name, "speed": s, "deadlines": d, "goodput": s * d}
        for name in ("goodput", "a <b>")
        for s in (1.0, 2.0)
        for d in (1.0, 4.0)
    ]
    drawn = goodput_chart(rows)
    assert drawn.count("<polyline") == 4
    assert "a &lt;b&gt;" in drawn


def test_a_pace_is_told_second_by_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of steps of half a second each by the cost model."""
    now = [100.0]
    monkeypatch.setattr("musiva.perf.traffic.clock.time.monotonic", lambda: now[0])
    monkeypatch.setattr("musiva.perf.traffic.clock.time.sleep", lambda s: now.append(now.pop() + s))
    monkeypatch.setattr("musiva.perf.traffic.pace.work_of", lambda plan, state: None)
    pace = Pace(SimpleNamespace(seconds=lambda work: 0.5))
    pace.loop = SimpleNamespace(state=None)
    pace.wait_until(100.5)
    for taken in (0.25, 2.0, 0.75):
        now[0] += taken
        pace.observe(None, None)
    # Waiting is no work; the second without an end of a step is like the one before.
    assert pace.factors() == [0.5, 0.5, 4.0, 1.5]
