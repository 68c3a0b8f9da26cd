"""OpenAI's own client against a real server: whole answers, streams, errors; sync and async."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent
from PIL import Image

from musiva.core.types import StepPlan, StepResult
from musiva.engine import Engine, Pipeline
from musiva.server import AppConfig
from musiva.telemetry import Metrics
from tests.server.live import live_server

KEY = "sk-secret"


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with live_server(engine, Metrics(), AppConfig(api_key=KEY)) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
def official(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def pixels(content: str | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content or ""))))


# The service that it was made for has an end that is announced.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_makes_videos(engine: Engine, official: openai.OpenAI) -> None:
    asked = {"seed": 4, "steps": 3, "output_format": "png"}
    json_type = {"Content-Type": "application/json"}
    made = official.videos.create(
        prompt="a red fox", size="32x48", extra_headers=json_type, extra_body=asked
    )
    done = official.videos.poll(made.id, poll_interval_ms=10)
    assert (done.status, done.progress, done.size) == ("completed", 100, "32x48")
    content = official.videos.download_content(made.id).read()
    (expected,) = engine.generate("a red fox", size=(32, 48), seed=4, steps=3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(expected))
    assert official.videos.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        official.videos.retrieve(made.id)


def test_generates(engine: Engine, official: openai.OpenAI) -> None:
    response = official.images.generate(
        model="tiny",
        prompt="a red fox",
        n=2,
        size="32x48",
        extra_body={"seed": 4, "steps": 3, "guidance_scale": 2.0, "negative_prompt": "rain"},
    )
    expected = engine.generate(
        "a red fox",
        num_images=2,
        size=(32, 48),
        seed=4,
        steps=3,
        guidance=2.0,
        negative_prompt="rain",
    )
    assert response.data is not None
    assert response.created > 0
    assert (response.output_format, response.size) == ("png", "32x48")
    assert (response.background, response.quality) == ("opaque", "high")
    assert response.usage is not None
    assert response.usage.output_tokens == 2 * engine.pipeline.num_tokens((32, 48))
    for entry, image in zip(response.data, expected, strict=True):
        assert entry.url is None
        assert entry.revised_prompt is None
        np.testing.assert_array_equal(pixels(entry.b64_json), np.asarray(image))


def test_takes_urls_and_words(official: openai.OpenAI) -> None:
    response = official.images.generate(
        prompt="a red fox",
        quality="standard",
        size="auto",
        style="natural",
        background="opaque",
        moderation="auto",
        response_format="url",
        user="someone",
    )
    assert response.data is not None
    answer = httpx.get(response.data[0].url or "")
    assert Image.open(io.BytesIO(answer.content)).size == (32, 32)


def test_streams(engine: Engine, official: openai.OpenAI) -> None:
    stream = official.images.generate(
        prompt="a red fox",
        size="32x48",
        stream=True,
        partial_images=2,
        extra_body={"seed": 4, "steps": 6},
    )
    *partial, last = list(stream)
    for i, event in enumerate(partial):
        assert isinstance(event, ImageGenPartialImageEvent)
        assert event.partial_image_index == i
        assert pixels(event.b64_json).shape == (48, 32, 3)
    assert isinstance(last, ImageGenCompletedEvent)
    assert (last.output_format, last.size) == ("png", "32x48")
    assert last.usage.output_tokens == engine.pipeline.num_tokens((32, 48))
    assert last.usage.total_tokens == last.usage.input_tokens + last.usage.output_tokens
    (expected,) = engine.generate("a red fox", size=(32, 48), seed=4, steps=6)
    np.testing.assert_array_equal(pixels(last.b64_json), np.asarray(expected))


def test_a_stream_that_is_left_frees_its_work(engine: Engine, official: openai.OpenAI) -> None:
    with official.images.generate(
        prompt="a fox", stream=True, partial_images=3, extra_body={"steps": 1000}
    ) as stream:
        next(iter(stream))
    official.images.generate(prompt="a fox", extra_body={"steps": 1})
    assert engine.num_waiting == 0


def test_raw_answers(official: openai.OpenAI) -> None:
    raw = official.images.with_raw_response.generate(prompt="a fox", extra_body={"seed": 3})
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().data is not None


def test_asyncio(url: str) -> None:
    async def ask() -> tuple[list[Any], Any]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
            stream = await client.images.generate(
                prompt="a fox", stream=True, partial_images=1, extra_body={"seed": 2}
            )
            events = [event async for event in stream]
            whole = await client.images.generate(prompt="a fox", extra_body={"seed": 2})
            with pytest.raises(openai.BadRequestError):
                await client.images.generate(prompt="")
            return events, whole

    events, whole = asyncio.run(ask())
    assert events[-1].b64_json == whole.data[0].b64_json


def test_raises_its_own_errors(url: str, official: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        official.images.generate(prompt="a fox", extra_body={"guidance_scale": 1000})
    assert (caught.value.param, caught.value.code) == ("guidance_scale", "invalid_value")
    with pytest.raises(openai.BadRequestError) as caught:
        official.images.generate(
            prompt="a fox", stream=True, partial_images=3, response_format="url"
        )
    assert caught.value.param == "response_format"
    with pytest.raises(openai.NotFoundError) as unknown:
        official.images.generate(prompt="a fox", model="gpt-image-1")
    assert unknown.value.code == "model_not_found"
    with (
        pytest.raises(openai.AuthenticationError) as refused,
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client,
    ):
        client.images.generate(prompt="a fox")
    assert refused.value.code == "invalid_api_key"


def test_request_ids_are_those_of_the_log(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    with (
        Engine(pipeline) as engine,
        live_server(engine, Metrics()) as (host, port),
        openai.OpenAI(base_url=f"http://{host}:{port}/v1", api_key="x", max_retries=0) as client,
    ):
        submit = engine.submit
        monkeypatch.setattr(engine, "submit", lambda r, *a: (seen.append(r.id), submit(r, *a)))
        mine = {"X-Request-Id": "of-the-client"}
        made = client.images.generate(prompt="a fox", extra_body={"steps": 1}, extra_headers=mine)
        assert [made._request_id] == seen
        listed = client.models.retrieve("tiny")
        assert listed._request_id not in (None, *seen)
        monkeypatch.setattr("musiva.server.drawing.encode_picture", None)
        with pytest.raises(openai.InternalServerError) as failed:
            client.images.generate(prompt="a fox", extra_body={"steps": 1})
        assert failed.value.request_id == seen[1]
        assert f"request {seen[1]}: POST '/v1/images/generations' failed" in caplog.text
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.generate(prompt=" ")
        assert refused.value.request_id not in (None, *seen)
    assert "of-the-client" not in caplog.text


def test_what_this_model_cannot_do_is_said(official: openai.OpenAI) -> None:
    picture = ("fox.png", b"x" * 3_000_000, "image/png")
    with pytest.raises(openai.BadRequestError, match="not supported by this model") as caught:
        official.images.edit(image=picture, prompt="a fox")
    assert caught.value.code == "unsupported"


def test_a_full_server_is_its_rate_limit_error(pipeline: Pipeline) -> None:
    with (
        Engine(pipeline) as engine,
        live_server(engine, Metrics(), AppConfig(max_waiting=1)) as (host, port),
        openai.OpenAI(base_url=f"http://{host}:{port}/v1", api_key="x", max_retries=0) as client,
        client.images.generate(
            prompt="a fox", stream=True, partial_images=1, extra_body={"steps": 1000}
        ),
    ):
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                client.images.generate(prompt="a fox", stream=stream)
            assert caught.value.code == "rate_limit_exceeded"
            assert int(caught.value.response.headers["retry-after"]) >= 1


def test_an_error_inside_a_stream_is_raised(pipeline: Pipeline) -> None:
    def observe(plan: StepPlan, result: StepResult) -> None:
        if plan.number == 8:
            raise RuntimeError("no more disk")

    with (
        Engine(pipeline, observe=observe) as engine,
        live_server(engine, Metrics()) as (host, port),
        openai.OpenAI(base_url=f"http://{host}:{port}/v1", api_key="x", max_retries=0) as client,
    ):
        stream = client.images.generate(
            prompt="a fox", stream=True, partial_images=10, extra_body={"steps": 20}
        )
        with pytest.raises(openai.APIError, match="no more disk") as caught:
            list(stream)
        assert caught.value.code == "unavailable"
        with pytest.raises(openai.InternalServerError):
            client.images.generate(prompt="a fox")


def test_lists_models(official: openai.OpenAI) -> None:
    assert [model.id for model in official.models.list()] == ["tiny"]
    model = official.models.retrieve("tiny")
    assert (model.object, model.owned_by) == ("model", "musiva")
