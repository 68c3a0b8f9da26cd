"""Both clients against the real server with a real model of a few thousand weights."""

from __future__ import annotations

import asyncio
import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from musiva.client import AsyncClient, Client, Completed, Picture, Preview, Progress
from musiva.core.errors import InvalidInput, Overloaded, Unavailable, UnknownModel
from musiva.engine import Engine, Pipeline
from musiva.server import create_app
from musiva.telemetry import Metrics
from tests.client.conftest import Ask, Live
from tests.server.live import live_server, wait_until

SMALL = {"size": (16, 24), "steps": 3, "seed": 5}


def array(picture: Picture | Preview) -> np.ndarray:
    return np.asarray(picture.image)


def test_pictures_are_the_engines(ask: Ask, live: Live) -> None:
    asked = ask(live.url, "generate", "a fox", num_images=2, **SMALL)
    assert asked.error is None
    expected = live.engine.generate("a fox", num_images=2, **SMALL)
    assert [picture.seed for picture in asked.value] == [5, 6]
    assert [(p.computed, p.cost, p.share, p.policy) for p in asked.value] == [
        (3, 3, 1, "never")
    ] * 2
    for picture, mine in zip(asked.value, expected, strict=True):
        assert np.array_equal(array(picture), np.asarray(mine))


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_again_from_any_format(ask: Ask, live: Live, output_format: str) -> None:
    options = {"guidance": 2.0, "sampler": "heun", "negative_prompt": "snow", "shift": 2.0}
    (first,) = ask(
        live.url, "generate", "ein Füchslein 🦊", output_format=output_format, **options, **SMALL
    ).value
    assert first.format == output_format
    assert first.parameters["prompt"] == "ein Füchslein 🦊"
    same = ask(live.url, "like", first.content, output_format=output_format).value[0]
    assert same.content == first.content


def test_a_stream_tells_all_and_gives_the_same_picture(ask: Ask, live: Live) -> None:
    whole = ask(live.url, "generate", "a fox", num_images=2, **SMALL).value
    asked = ask(live.url, "stream", "a fox", previews=2, num_images=2, **SMALL)
    assert asked.error is None
    pictures = {e.index: e.picture for e in asked.value if isinstance(e, Completed)}
    assert [pictures[i].content for i in (0, 1)] == [picture.content for picture in whole]
    shown = [e for e in asked.value if isinstance(e, Preview)]
    assert shown
    assert {e.index for e in shown} <= {0, 1}
    assert all(array(e).shape == (24, 16, 3) for e in shown)
    told = [e for e in asked.value if isinstance(e, Progress)]
    assert told
    assert {e.num_evaluations for e in told} == {live.engine.num_evaluations(request(live))}
    quiet = ask(live.url, "stream", "a fox", progress=False, **SMALL).value
    assert [type(e) for e in quiet] == [Completed]


def request(live: Live):
    return live.engine.request("a fox", **SMALL)


def test_models_health_and_metrics(ask: Ask, live: Live) -> None:
    (model,) = ask(live.url, "models").value
    assert (model["id"], model["size"]) == ("tiny", "32x32")
    health = ask(live.url, "health").value
    assert (health["status"], health["model"]) == ("ok", "tiny")
    assert "musiva_" in ask(live.url, "metrics").value


@pytest.mark.parametrize("call", ["generate", "stream"])
@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (InvalidInput, {"size": (17, 16)}, "size: got '17x16'; allowed: width x height, each"),
        (InvalidInput, {"num_images": 99}, "num_images: got 99; allowed: a whole number from 1"),
        (InvalidInput, {"guidance": -1}, "guidance: got -1; allowed: "),
        (InvalidInput, {"steps": "ten"}, "steps: got 'ten'; allowed: a whole number from 1"),
        (InvalidInput, {"sampler": "magic"}, "sampler: got 'magic'; allowed: euler"),
        (InvalidInput, {"output_format": "gif"}, "output_format: got 'gif'; allowed: png"),
        (InvalidInput, {"output_compression": 3}, "output_compression: got 3; allowed: 100"),
        (UnknownModel, {"model": "big"}, "model: got 'big'; allowed: tiny"),
    ],
)
def test_the_server_checks_values(
    ask: Ask, live: Live, call: str, kind: type[InvalidInput], options: dict, told: str
) -> None:
    error = ask(live.url, call, "a fox", **options).failed(kind, told)
    assert error.answer is not None
    assert error.answer.status == kind.http_status


def test_leaving_a_stream_cancels(live: Live) -> None:
    with Client(live.url) as client:
        with client.stream("a fox", steps=1000) as events:
            assert isinstance(next(events), Progress)
        wait_until(lambda: live.engine.num_waiting == 0)
        assert list(events) == []
        for _ in client.stream("a fox", steps=1000):
            break
        wait_until(lambda: live.engine.num_waiting == 0)


def test_leaving_a_stream_cancels_for_asyncio(live: Live) -> None:
    async def leave() -> None:
        async with AsyncClient(live.url) as client:
            async with client.stream("a fox", steps=1000) as events:
                assert isinstance(await anext(events), Progress)
            await asyncio.to_thread(wait_until, lambda: live.engine.num_waiting == 0)
            task = asyncio.create_task(client.generate("a fox", steps=1000))
            await asyncio.to_thread(wait_until, lambda: live.engine.num_waiting == 1)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await asyncio.to_thread(wait_until, lambda: live.engine.num_waiting == 0)

    asyncio.run(leave())


def test_one_client_for_many_threads(live: Live) -> None:
    with Client(live.url) as client, ThreadPoolExecutor(8) as pool:

        def draw(seed: int) -> int:
            return client.generate("a fox", size=(16, 16), steps=2, seed=seed)[0].seed

        assert list(pool.map(draw, range(16))) == list(range(16))


def test_a_server_that_stops_is_told(pipeline: Pipeline) -> None:
    with Engine(pipeline) as engine:
        app = create_app(engine, metrics=Metrics())
        app.state.stopping.set()
        transport = httpx.ASGITransport(app)

        async def draw() -> None:
            async with AsyncClient("http://test", retries=0, transport=transport) as client:
                await client.generate("a fox", **SMALL)

        with pytest.raises(Unavailable, match="shutting down") as caught:
            asyncio.run(draw())
    assert caught.value.answer is not None
    assert caught.value.answer.status == 503


def test_a_full_server_is_told(ask: Ask, pipeline: Pipeline) -> None:
    metrics = Metrics()
    with (
        Engine(pipeline, Engine.Config(max_waiting=1)) as engine,
        live_server(engine, metrics) as (host, port),
        Client(f"http://{host}:{port}") as client,
        client.stream("a fox", steps=1000) as events,
    ):
        next(events)
        for call in ("generate", "stream"):
            asked = ask(f"http://{host}:{port}", call, "a fox", client={"retries": 0})
            asked.failed(Overloaded)


def test_the_examples_of_the_page_run(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(examples) == 6
    for example in examples:
        assert "http://127.0.0.1:8400" in example
        exec(example.replace("http://127.0.0.1:8400", live.url), {})
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["(32, 32) 1 12", "tiny ok"]
    assert "picture 0 (32, 32, 3)" in told
    assert "job succeeded" in told
    assert told[-1].startswith("steps 0 a whole number from 1 to 1000")
    written = {path.name for path in tmp_path.iterdir()}
    assert {"fox.png", "fox-0.png", "fox-1.png", "hen.png"} <= written
