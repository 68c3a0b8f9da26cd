"""A server as an engine: whatever an engine gives, tells and raises, it does too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from musiva.client import EngineOptions, RemoteEngine, remote
from musiva.core.errors import (
    Cancelled,
    InvalidInput,
    MusivaError,
    NonFinite,
    Overloaded,
    Unavailable,
)
from musiva.core.types import Event
from musiva.engine import Engine, Pipeline
from musiva.server import AppConfig
from musiva.telemetry import Metrics
from tests.client.conftest import Live
from tests.client.scripted import STREAM, answer, completed, event, progress, scripted
from tests.server.live import asked_until, live_server, wait_until

SMALL: dict[str, Any] = {"size": (16, 24), "steps": 3, "seed": 5}
OTHERS: dict[str, Any] = {
    "size": (32, 16),
    "steps": 4,
    "seed": 9,
    "guidance": 2.0,
    "num_images": 2,
    "quality": 100,
    "negative_prompt": "snow",
    "sampler": "heun",
    "spacing": "karras",
    "shift": 2.0,
    "previews": 2,
}
LONG = 1000


@pytest.fixture
def engine(live: Live) -> Iterator[RemoteEngine]:
    with Engine.connect(live.url) as engine:
        yield engine
    assert "musiva-remote" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("prompts", "options"),
    [("a fox", SMALL), (["a fox", "a hen", "an owl"], OTHERS), (["a fox"], {"seed": 1})],
)
def test_pictures_are_the_engines(
    engine: RemoteEngine, live: Live, prompts: str | list[str], options: dict[str, Any]
) -> None:
    pictures = engine.generate(prompts, **options)
    expected = live.engine.generate(prompts, **options)
    assert len(pictures) == len(expected) > 0
    for picture, mine in zip(pictures, expected, strict=True):
        assert picture.mode == mine.mode
        assert np.array_equal(np.asarray(picture), np.asarray(mine))
    assert engine.generate([]) == []


def test_none_is_the_default_here_and_there(engine: RemoteEngine, live: Live) -> None:
    options = dict.fromkeys(EngineOptions.__annotations__) | {"steps": 2, "seed": 3}
    ((theirs,), (mine,)) = (one.generate("a fox", **options) for one in (engine, live.engine))
    assert np.array_equal(np.asarray(theirs), np.asarray(mine))


def test_events_are_the_engines(engine: RemoteEngine, live: Live) -> None:
    options = SMALL | {"steps": 8, "num_images": 2, "previews": 3, "policy": "ras:side=1"}
    kinds = [lambda e, kind=kind: e.kind == kind for kind in ("progress", "preview")]
    told = asked_until(lambda: list(engine.stream("a fox", **options)), *kinds)
    expected = list(live.engine.stream("a fox", **options))
    assert len({e.request for e in told}) == 1
    assert told[-1] == Event(told[0].request, "done")
    by_place = {(e.kind, e.index, e.evaluation): e for e in expected}
    last = (0, 0)
    for e in told[:-1]:
        # The server may leave out progress and previews, but what it tells is the engine's.
        mine = by_place[e.kind, e.index, e.evaluation]
        assert (e.num_evaluations, e.error) == (mine.num_evaluations, None)
        assert (e.picture is None) == (e.kind == "progress")
        assert (e.tiles, e.tile_counts) == (mine.tiles, mine.tile_counts)
        if e.kind != "preview":
            assert (e.computed, e.cost) == (mine.computed, pytest.approx(mine.cost, abs=1e-4))
        if e.picture is not None:
            assert isinstance(e.picture, np.ndarray)
            assert (e.picture.dtype, e.picture.shape) == (np.uint8, (24, 16, 3))
            assert np.array_equal(e.picture, mine.picture)
        if e.index == 0:
            assert (e.evaluation, e.kind == "picture") >= last
            last = (e.evaluation, e.kind == "picture")
    assert {e.kind for e in told} == {"progress", "preview", "picture", "done"}
    assert sorted(e.index for e in told if e.kind == "picture") == [0, 1]


def test_a_stream_is_sent_at_once_and_leaves_out_the_queue() -> None:
    waits = progress(0, waiting=3)
    script = [STREAM, waits, progress(1), progress(4), completed()]
    with scripted(script) as server, RemoteEngine(server.url) as engine:
        stream = engine.stream("a fox", previews=2, guidance=3.0)
        wait_until(lambda: bool(server.bodies))
        told = [(e.kind, e.evaluation, e.num_evaluations) for e in stream]
        assert list(stream) == []
    assert told == [("progress", 1, 4), ("progress", 4, 4), ("picture", 4, 4), ("done", 0, 0)]
    body = server.bodies[0]
    assert (body["partial_images"], body["progress"], "quality" in body) == (2, True, False)


def test_all_prompts_get_the_same_drawn_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "AT_A_TIME", 2)
    scripts = [[STREAM, completed(0, 7)]] * 5
    with scripted(*scripts) as server, RemoteEngine(server.url) as engine:
        assert len(engine.generate([f"fox {i}" for i in range(5)], seed=None)) == 5
    assert len({body["seed"] for body in server.bodies}) == 1
    assert {body["prompt"] for body in server.bodies} == {f"fox {i}" for i in range(5)}


@pytest.mark.parametrize("call", ["generate", "stream"])
@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"size": (17, 16)}, "width x height, each"),
        ({"size": (0, 16)}, ""),
        ({"num_images": 99}, "a whole number from 1 to"),
        ({"guidance": -1}, "a number from 0 to 100"),
        ({"steps": "ten"}, "a whole number from 1 to 1000"),
        ({"seed": -1}, "a whole number from 0 to"),
        ({"sampler": "magic"}, "euler"),
        ({"spacing": "magic"}, ""),
        ({"shift": 0}, ""),
        ({"previews": -1}, "a whole number from 0 to"),
        ({"previews": 5, "steps": 5}, "a whole number from 0 to 4"),
        ({"previews": 9, "steps": 5, "sampler": "heun"}, "a whole number from 0 to 8"),
        ({"previews": 1, "steps": 1}, "a whole number from 0 to 0"),
        ({"previews": 1.0}, "a whole number from 0 to"),
        ({"previews": None}, "a whole number from 0 to"),
        ({"previews": True}, "a whole number from 0 to"),
        ({"quality": "high"}, "a whole number from 1 to 100"),
        ({"quality": 50}, ""),
        ({"min_quality": 0}, "a whole number from"),
        ({"max_quality": 90}, ""),
        ({"deadline": -1}, ""),
        ({"deadline": "2030-01-01T00:00:00Z"}, "a number"),
        ({"latency": "asap"}, "interactive, standard"),
        ({"priority": 101}, "a whole number from -100 to 100"),
    ],
)
def test_a_value_is_refused_by_the_name_that_the_engine_gives_it(
    engine: RemoteEngine, live: Live, call: str, options: dict[str, Any], allowed: str
) -> None:
    caught = []
    for one in (engine, live.engine):
        with pytest.raises(InvalidInput) as error:
            list(getattr(one, call)("a fox", **options))
        assert allowed in error.value.allowed
        caught.append(error.value)
    theirs, mine = caught
    assert (type(theirs), theirs.field) == (type(mine), mine.field)


@pytest.mark.parametrize("prompts", [" ", ["", "a fox"], ["a fox", " "], ["a fox", "a hen", 3]])
def test_a_bad_prompt_is_named_by_its_place(
    engine: RemoteEngine, live: Live, prompts: str | list[str]
) -> None:
    for one in (engine, live.engine):
        with pytest.raises(InvalidInput) as caught:
            one.generate(prompts, **SMALL | {"steps": LONG})
        place = len(prompts) - 1 if prompts[0] == "a fox" else 0
        assert caught.value.field == (f"prompts[{place}]" if place else "prompt")
    wait_until(lambda: live.engine.num_waiting == 0)


@pytest.mark.parametrize("call", ["generate", "stream"])
def test_what_only_an_engine_in_this_process_takes(engine: RemoteEngine, call: str) -> None:
    with pytest.raises(InvalidInput, match="latents: got 'list'; allowed: None: a server"):
        getattr(engine, call)("a fox", latents=[torch.zeros(4, 2, 2)])
    for name in ("model", "output_format", "timeout", "stepz"):
        with pytest.raises(TypeError, match=name):
            getattr(engine, call)("a fox", **{name: 1})


def test_what_fails_on_the_way_is_raised() -> None:
    broken = event("error", error={"message": "NaN", "code": "non_finite"})
    full = answer({"error": {"message": "full", "code": "rate_limit_exceeded"}}, "429 Too Many")
    scripts = [[STREAM, progress(3), broken], [STREAM, progress(3)], [full]]
    kinds: list[tuple[type[MusivaError], str]] = [
        (NonFinite, "NaN"),
        (Unavailable, "ended after evaluation 3"),
        (Overloaded, "full"),
    ]
    with scripted(*scripts * 2) as server, RemoteEngine(server.url, retries=0) as engine:
        for kind, told in kinds:
            with pytest.raises(kind, match=told):
                engine.generate("a fox")
        for kind, told in kinds:
            stream = engine.stream("a fox")
            with pytest.raises(kind, match=told):
                list(stream)
            assert list(stream) == []
    with (
        RemoteEngine(server.url, retries=0) as engine,
        pytest.raises(Unavailable, match="no connection"),
    ):
        engine.generate("a fox")


def test_leaving_a_stream_cancels(engine: RemoteEngine, live: Live) -> None:
    stream = engine.stream("a fox", steps=LONG)
    assert next(stream).kind == "progress"
    stream.close()
    assert list(stream) == []
    wait_until(lambda: live.engine.num_waiting == 0)
    for _ in engine.stream("a fox", steps=LONG):
        break
    wait_until(lambda: live.engine.num_waiting == 0)


def test_closing_cancels_all_and_takes_no_more(live: Live) -> None:
    engine = Engine.connect(live.url)
    with ThreadPoolExecutor(1) as pool:
        stream = engine.stream("a fox", steps=LONG)
        drawing = pool.submit(engine.generate, ["a fox", "a hen"], steps=LONG)
        wait_until(lambda: live.engine.num_waiting == 3)
        engine.close()
        with pytest.raises(Cancelled):
            drawing.result(10)
        with pytest.raises(Cancelled):
            list(stream)
    wait_until(lambda: live.engine.num_waiting == 0)
    engine.close()
    for call in (engine.generate, engine.stream):
        with pytest.raises(Unavailable, match="the engine is closed"):
            call("a fox")


def test_it_may_be_called_from_any_thread_and_inside_a_running_loop(engine: RemoteEngine) -> None:
    async def draw() -> int:
        return len(engine.generate("a fox", **SMALL))

    assert asyncio.run(draw()) == 1
    with ThreadPoolExecutor(4) as pool:
        drawn = pool.map(lambda seed: engine.generate("a fox", **SMALL | {"seed": seed}), range(8))
        assert len({pictures[0].tobytes() for pictures in drawn}) == 8


def test_a_key(pipeline: Pipeline) -> None:
    with (
        Engine(pipeline) as behind,
        live_server(behind, Metrics(), AppConfig(api_key="sk-right")) as (host, port),
    ):
        url = f"http://{host}:{port}"
        with Engine.connect(url, api_key="sk-right") as engine:
            assert len(engine.generate("a fox", **SMALL)) == 1
        with Engine.connect(url) as engine, pytest.raises(InvalidInput, match="api_key: got"):
            engine.generate("a fox", **SMALL)
    with pytest.raises(InvalidInput, match="base_url: got"):
        Engine.connect("localhost")
