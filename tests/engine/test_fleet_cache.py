"""Fleets whose workers find each other's pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.engine.fleets import Told, expected, fleet_of, kill, submit

from musiva.comm import Service
from musiva.core.errors import InvalidInput
from musiva.engine import Engine, Fleet, load_pipeline
from musiva.engine.fleet.launcher import ThreadHold
from musiva.engine.fleet.placement import Load, placed
from musiva.engine.pipeline import Pipeline
from musiva.store import Cache, Embedded, Holder, answering
from musiva.store.folder import SHARED_ROOT

ASKED = {"prompt": "a fox", "size": (64, 64), "steps": 6, "seed": 3}
CONFIG = Engine.Config(cache=Cache.Config(memory_bytes=32 << 20))


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def told(fleet: Fleet, **asked: object) -> Told:
    return submit(fleet, Told(), **{**ASKED, **asked}).wait()


def reused(one: Told) -> int:
    assert one.error is None, one.error
    (report,) = [event.report for event in one.events if event.kind == "picture"]
    assert report is not None
    return report.reused


def until(truth: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.02)


def settle(fleet: Fleet) -> None:
    """Until what was computed is there for others."""
    figures = fleet.cache_figures
    assert figures is not None
    time.sleep(0.5)


def test_one_engine_finds_what_it_has_made(pipeline: Pipeline) -> None:
    with Engine(pipeline, CONFIG) as engine:
        assert engine.cache_figures is not None
        asked = {name: value for name, value in ASKED.items() if name != "prompt"}
        first = engine.generate(["a fox"], **asked)  # type: ignore[arg-type]
        assert engine._cache is not None
        engine._cache.flush(10.0)
        second = engine.generate(["a fox"], **asked)  # type: ignore[arg-type]
        figures = engine.cache_figures
    assert np.array_equal(np.asarray(first[0]), np.asarray(second[0]))
    # Six evaluations; the prompts were still there.
    assert (figures.memory_hits, figures.published) == (6, 8)
    with Engine(pipeline) as engine:
        assert engine.cache_figures is None


def test_workers_find_what_others_have_made(pipeline: Pipeline) -> None:
    picture = expected(pipeline, ASKED)[0]
    with fleet_of(pipeline, 3, CONFIG) as fleet:
        assert reused(told(fleet)) == 0
        settle(fleet)
        for number in (0, 1):
            # Whoever made it is not there any more.
            fleet.drain(number)
            until(lambda: all(one.phase == "ready" for one in fleet.members()))
            again = told(fleet)
            assert np.array_equal(again.pictures[0], picture)
            assert reused(again) == 6
        until(lambda: fleet.cache_figures is not None and fleet.cache_figures.hits >= 12)
        assert sum(one.found for one in fleet.members()) >= 6
        assert fleet._commons is not None
        folder = fleet._commons.config.shared
    assert folder is not None
    assert not (SHARED_ROOT / folder).exists()


@pytest.mark.parametrize(
    "policy", ["never", "interval:interval=2,warmup=2", "ras:warmup=2,interval=3,share=0.5"]
)
def test_a_worker_that_dies_takes_nothing_along(pipeline: Pipeline, policy: str) -> None:
    asked = {**ASKED, "policy": policy, "steps": 12}
    picture = expected(pipeline, asked)[0]
    with fleet_of(pipeline, 2, CONFIG) as fleet:
        for _ in range(3):
            one = Told(also=lambda event: event.evaluation == 5 and kill(fleet, event.request))
            submit(fleet, one, **asked).wait()
            assert one.error is None
            assert np.array_equal(one.pictures[0], picture)
            one.check_order()
            until(lambda: all(w.phase == "ready" for w in fleet.members()))


def test_a_fleet_goes_on_without_its_directory(pipeline: Pipeline) -> None:
    service = Service(answering(Embedded()), b"secret", "127.0.0.1")
    cache = Cache.Config(directory=service.address, secret=b"secret")
    picture = expected(pipeline, ASKED)[0]
    with fleet_of(pipeline, 2, Engine.Config(cache=cache)) as fleet:
        service.close()
        for _ in range(2):
            assert np.array_equal(told(fleet).pictures[0], picture)
            settle(fleet)
        # Of its own host it knows without.
        assert reused(told(fleet)) == 6


def test_a_worker_near_the_pages_of_a_request_saves_its_seconds(pipeline: Pipeline) -> None:
    with fleet_of(pipeline, 2, CONFIG) as fleet:
        told(fleet)
        settle(fleet)
        ready = [one.ready for one in fleet._roster.ready if one.ready]
        holders = {number: one.holder for number, one in enumerate(ready) if one.holder}
        (root,) = {one.root for one in ready if one.root}
        commons = fleet._commons
        assert commons is not None
        request = fleet.request(**ASKED)  # type: ignore[arg-type]
        # Of one host it does not matter which of them gets it.
        assert commons.saved(fleet, request, holders, root) == {}
        apart = {**holders, 7: Holder("other", "10.0.0.1:1", "elsewhere")}
        saved = commons.saved(fleet, request, apart, root)
        assert saved[0] == saved[1] > saved[7] == 0.0
        other = fleet.request(**{**ASKED, "seed": 99})  # type: ignore[arg-type]
        assert set(commons.saved(fleet, other, apart, root).values()) == {0.0}
        # Gates decide about what nobody could name before.
        gated = fleet.request(**ASKED, policy="first_block:threshold=0.1")  # type: ignore[arg-type]
        assert commons.saved(fleet, gated, apart, root) == {}
    assert placed({0: Load(3.0), 7: Load(2.5)}, (), saved) == (0 if saved[0] > 0.5 else 7)
    assert placed({0: Load(3.0), 7: Load(2.5)}, (), {0: 0.6}) == 0
    assert placed({0: Load(3.0), 7: Load(2.5)}, (), {0: 0.4}) == 7


def test_a_directory_that_cannot_be_is_an_error(pipeline: Pipeline) -> None:
    cache = Cache.Config(directory="nowhere", secret=b"secret")
    with (
        pytest.raises(InvalidInput, match="HOST:PORT"),
        fleet_of(pipeline, 1, Engine.Config(cache=cache)),
    ):
        pass


def test_a_worker_that_ends_as_told_closes_its_cache_first(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for being written is, and the directory knows that it has gone."""
    events: list[str] = []
    close, kill = Cache.close, ThreadHold.kill

    def closed(cache: Cache) -> None:
        time.sleep(0.3)
        close(cache)
        events.append("closed")

    def killed(hold: ThreadHold) -> None:
        events.append("killed")
        kill(hold)

    monkeypatch.setattr(Cache, "close", closed)
    monkeypatch.setattr(ThreadHold, "kill", killed)
    with fleet_of(pipeline, config=CONFIG) as fleet:
        told(fleet)
        fleet.drain(0)
        until(lambda: fleet.members()[0].life == 2)
        assert events == ["closed", "killed"]


def test_a_directory_that_does_not_answer_holds_nobody_up(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(answering(Embedded()), b"secret", "127.0.0.1")
    cache = Cache.Config(directory=service.address, secret=b"secret")
    with fleet_of(pipeline, 2, Engine.Config(cache=cache)) as fleet:
        ready = [one.ready for one in fleet._roster.ready if one.ready]
        holders = {number: one.holder for number, one in enumerate(ready) if one.holder}
        apart = {**holders, 7: Holder("other", "10.0.0.1:1", "elsewhere")}
        commons, asked = fleet._commons, []
        assert commons is not None
        release = threading.Event()
        monkeypatch.setattr(
            commons._directory, "find", lambda *_: asked.append(1) or (release.wait(20.0) and [])
        )
        request = fleet.request(**ASKED)  # type: ignore[arg-type]
        start = time.monotonic()
        for _ in range(3):
            assert commons.saved(fleet, request, apart, "root") == {}
        assert time.monotonic() - start < 2.0
        assert len(asked) == 1, "for a while it is not asked again"
        release.set()
    assert commons.saved(fleet, request, apart, "root") == {}, "nor when the fleet is closed"
    service.close()
