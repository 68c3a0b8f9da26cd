"""`stream: true`: which events come, what they hold, and that their pictures are the same."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from musiva.core.provenance import read_parameters
from musiva.engine import Engine, Pipeline, Scheduler
from musiva.telemetry import Metrics
from tests.server.live import asked_until, events_in, live_server, wait_until

URL = "/v1/images/generations"


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with live_server(engine, Metrics()) as (host, port):
        yield f"http://{host}:{port}{URL}"


def ask(url: str, **body: object) -> list[dict[str, Any]]:
    response = httpx.post(url, json={"prompt": "a fox", "stream": True, **body}, timeout=30)
    assert response.status_code == 200, response.text
    return events_in(response.content)


def asked_for_previews(url: str, *, n: int = 1, **body: object) -> list[dict[str, Any]]:
    """With a partial image of each picture."""
    ready = [lambda e, i=i: is_partial(e) and e["index"] == i for i in range(n)]
    return asked_until(lambda: ask(url, n=n, **body), *ready)


def is_partial(event: dict[str, Any]) -> bool:
    return event["type"].endswith("partial_image")


def pixels(event: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(event["b64_json"]))))


def test_headers_let_nothing_be_held_back(url: str) -> None:
    body = {"prompt": "a fox", "stream": True}
    with httpx.stream("POST", url, json=body) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-length" not in response.headers
        assert response.read()


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_stream_without_partial_images_is_its_picture(url: str, output_format: str) -> None:
    (event,) = ask(url, seed=4, size="48x32", output_format=output_format)
    body = {"prompt": "a fox", "seed": 4, "size": "48x32", "output_format": output_format}
    answer = httpx.post(url, json=body).json()
    assert event["type"] == "image_generation.completed"
    assert event["b64_json"] == answer["data"][0]["b64_json"]
    for name in ("size", "quality", "background", "output_format", "usage", "warnings"):
        assert event[name] == answer[name], name
    assert (event["index"], event["seed"]) == (0, 4)
    assert event["timing"]["seconds"] > 0
    assert read_parameters(base64.b64decode(event["b64_json"]))["seed"] == 4


def test_partial_images_and_progress_of_several_pictures(url: str, engine: Engine) -> None:
    body = {"n": 2, "seed": 8, "steps": 8, "size": "32x48", "partial_images": 3, "progress": True}
    events = asked_for_previews(url, **body)
    counts = Counter((event["type"].split(".")[1], event["index"]) for event in events)
    final = {e["index"]: e for e in events if e["type"] == "image_generation.completed"}
    expected = engine.generate("a fox", num_images=2, seed=8, steps=8, size=(32, 48))
    for index, picture in enumerate(expected):
        np.testing.assert_array_equal(pixels(final[index]), np.asarray(picture))
        assert final[index]["seed"] == 8 + index
        assert counts["completed", index] == 1
        # A reader may miss some of these, never their order.
        partial = [e for e in events if is_partial(e) and e["index"] == index]
        assert 1 <= len(partial) <= 3
        assert [e["partial_image_index"] for e in partial] == list(range(len(partial)))
        evaluations = [e["evaluation"] for e in partial]
        assert evaluations == sorted(set(evaluations))
        assert set(evaluations) <= {2, 4, 6}
        for event in partial:
            assert pixels(event).shape == (48, 32, 3)
            assert (event["num_evaluations"], event["size"]) == (8, "32x48")
            assert set(event) >= {"created_at", "quality", "background", "output_format"}
        steps = [e for e in events if e["type"].endswith("progress") and e["index"] == index]
        running = [e["evaluation"] for e in steps if e["waiting"] is None]
        assert running == sorted(running)
        assert all(e["num_evaluations"] == 8 for e in steps)


def test_partial_images_in_their_format(url: str) -> None:
    asked = {"output_format": "webp", "output_compression": 50}
    events = asked_for_previews(url, steps=4, partial_images=3, **asked)
    for event in events:
        image = Image.open(io.BytesIO(base64.b64decode(event["b64_json"])))
        assert (image.format, event["output_format"]) == ("WEBP", "webp")


def test_partial_images_in_a_format_of_their_own(url: str) -> None:
    *partial, last = asked_for_previews(url, steps=4, partial_images=3, partial_format="jpeg")
    for event in partial:
        image = Image.open(io.BytesIO(base64.b64decode(event["b64_json"])))
        assert (image.format, event["output_format"]) == ("JPEG", "jpeg")
    image = Image.open(io.BytesIO(base64.b64decode(last["b64_json"])))
    assert (image.format, last["output_format"]) == ("PNG", "png")


@pytest.mark.parametrize(("steps", "most"), [(1, 0), (4, 3)])
def test_no_more_partial_images_come_than_there_are(url: str, steps: int, most: int) -> None:
    *partial, last = ask(url, steps=steps, partial_images=100)
    assert last["type"] == "image_generation.completed"
    assert len(partial) <= most
    assert all(1 <= event["evaluation"] < steps for event in partial)


def test_a_stream_carries_no_urls(url: str) -> None:
    body = {"prompt": "a fox", "stream": True, "response_format": "url"}
    response = httpx.post(url, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format"


def test_a_quiet_stream_keeps_its_connection_in_use(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musiva.server.generations.POLL_SECONDS", 0.02)
    monkeypatch.setattr("musiva.server.generations.QUIET_POLLS", 2)
    body = {"prompt": "a fox", "stream": True, "size": "128x128", "steps": 60}
    with Engine(pipeline) as engine, live_server(engine, Metrics()) as (host, port):
        response = httpx.post(f"http://{host}:{port}{URL}", json=body, timeout=30)
    assert response.content.startswith(b":")
    assert response.content.count(b"\n\n:") > 1
    assert [event["type"] for event in events_in(response.content)] == [
        "image_generation.completed"
    ]


def test_progress_begins_with_the_number_of_evaluations(url: str) -> None:
    for steps in (1, 3):
        first, *_ = ask(url, steps=steps, progress=True, sampler="heun", size="16x16")
        assert first["type"] == "image_generation.progress"
        assert (first["evaluation"], first["num_evaluations"]) == (0, 2 * steps - 1)


def test_a_waiting_stream_tells_its_place(pipeline: Pipeline) -> None:
    """Packs of one sample: the second request waits for the first."""
    config = Engine.Config(scheduler=Scheduler.Config(max_rows=1))
    body = {"prompt": "a fox", "stream": True, "progress": True, "size": "128x128"}
    with (
        Engine(pipeline, config) as engine,
        live_server(engine, Metrics()) as (host, port),
        ThreadPoolExecutor(2) as pool,
    ):
        post = f"http://{host}:{port}{URL}"
        first = pool.submit(httpx.post, post, json={**body, "steps": 150}, timeout=60)
        wait_until(lambda: engine.num_running == 1)
        second = pool.submit(httpx.post, post, json={**body, "steps": 2}, timeout=60)
        wait_until(lambda: engine.num_waiting == 2)
        health = httpx.get(f"http://{host}:{port}/healthz").json()
        assert (health["waiting"], health["running"]) == (1, 1)
        started, waited = (events_in(answer.result().content) for answer in (first, second))
    assert waited[0]["waiting"] == 1
    assert waited[0]["evaluation"] == 0
    assert waited[-1]["type"] == "image_generation.completed"
    assert all(event["waiting"] is None for event in waited[1:-1] if event["evaluation"] > 0)
    assert started[-1]["type"] == "image_generation.completed"
