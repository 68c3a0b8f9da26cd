"""Bad input and faults: status, OpenAI's error shape, and a message of field, value and range."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from musiva.engine import Engine, Pipeline, load_pipeline
from musiva.server import AppConfig, create_app
from musiva.telemetry import Metrics
from tests.server.live import wait_until

URL = "/v1/images/generations"
JSON = {"Content-Type": "application/json"}
LONG_WORK = {"prompt": "a blue whale", "size": "128x128", "steps": 1000, "n": 8}


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    content = response.json()
    assert list(content) == ["error"]
    error = content["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    if status == 429:
        assert error["type"] == "rate_limit_error"
    else:
        assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    return error


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("prompt", "", "not empty"),
        ("prompt", "  \n", "not empty"),
        ("prompt", "fox " * 200, "at most 64 tokens"),
        ("prompt", "x" * 32_001, "at most 32000 characters"),
        ("prompt", None, "a text"),
        ("prompt", 3, "a text"),
        ("negative_prompt", "fox " * 200, "at most 64 tokens"),
        ("negative_prompt", ["rain"], "a text"),
        ("n", 0, "from 1 to 8"),
        ("n", 9, "from 1 to 8"),
        ("n", "2", "from 1 to 8"),
        ("n", 1.5, "from 1 to 8"),
        ("n", True, "from 1 to 8"),
        ("size", "33x32", "a multiple of 8 from 16 to 128"),
        ("size", "8x32", "a multiple of 8 from 16 to 128"),
        ("size", "32x136", "a multiple of 8 from 16 to 128"),
        ("size", "0x0", "whole number from 1|multiple of 8"),
        ("size", "-8x32", "WIDTHxHEIGHT"),
        ("size", "32", "WIDTHxHEIGHT"),
        ("size", "32x32x32", "WIDTHxHEIGHT"),
        ("size", [32, 32], "WIDTHxHEIGHT"),
        ("steps", 0, "from 1 to 1000"),
        ("steps", 10**9, "from 1 to 1000"),
        ("steps", 4.0, "from 1 to 1000"),
        ("seed", -1, "from 0 to 9223372036854775807"),
        ("seed", 2**63, "from 0 to 9223372036854775807"),
        ("seed", "1", "from 0 to 9223372036854775807"),
        ("guidance_scale", -0.5, "from 0 to 100"),
        ("guidance_scale", 100.5, "from 0 to 100"),
        ("guidance_scale", "4", "from 0 to 100"),
        ("sampler", "ddim", "euler"),
        ("spacing", "leading", "karras"),
        ("shift", 0, "0.01 to 100"),
        ("quality", 80, "100"),
        ("quality", 0, "from 1 to 100"),
        ("quality", 101, "from 1 to 100"),
        ("min_quality", 80, "musiva calibrate"),
        ("min_quality", 0, "from 1 to 100"),
        ("quality", "best", "max or a whole number from 1 to 100"),
        ("output_format", "gif", "png, jpeg or webp"),
        ("output_compression", 101, "from 0 to 100"),
        ("output_compression", 50, "100 with output_format png"),
        ("response_format", "file", "b64_json or url"),
        ("background", "transparent", "auto or opaque"),
        ("moderation", "none", "auto or low"),
        ("style", "dull", "vivid or natural"),
        ("user", 7, "a text"),
        ("safety_identifier", 7, "a text"),
        ("complexity", "none", "low, medium or high"),
        ("stream", "yes", "true or false"),
        ("stream", 1, "true or false"),
        ("progress", True, "false without stream"),
        ("progress", "true", "true or false"),
        ("partial_images", 2, "0 without stream"),
        ("partial_format", "jpeg", "null without stream"),
        ("partial_format", "gif", "png, jpeg or webp"),
        ("partial_images", -1, "from 0 to 100"),
        ("partial_images", 101, "from 0 to 100"),
        ("partial_images", 1.5, "from 0 to 100"),
    ],
)
def test_a_value_that_is_not_allowed(
    client: TestClient, field: str, value: object, allowed: str
) -> None:
    error = error_of(client.post(URL, json={"prompt": "a fox", field: value}), 400)
    assert error["param"] == field
    assert error["code"] in ("invalid_value", "invalid_type")
    assert error["message"].startswith(f"{field}")
    assert "got " in error["message"]
    assert any(part in error["message"] for part in allowed.split("|")), error["message"]
    for name in ("num_images", "guidance:"):
        assert name not in error["message"]


def test_unknown_fields_are_all_named(client: TestClient) -> None:
    body = {"prompt": 3, "cfg": 4, "width": 64}
    error = error_of(client.post(URL, json=body), 400)
    assert error["message"].startswith("cfg, width: no such field")
    assert "guidance_scale" in error["message"]
    assert (error["param"], error["code"]) == ("cfg", "unknown_parameter")


def test_missing_prompt(client: TestClient) -> None:
    error = error_of(client.post(URL, json={"n": 1}), 400)
    assert (error["param"], error["code"]) == ("prompt", "missing_required_parameter")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"prompt": "a fox"',
        b'{"prompt": "a fox",}',
        b"prompt=a+fox",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b"[" * 50_000,
        b'{"prompt": "a fox", "seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_malformed_json(client: TestClient, body: bytes) -> None:
    error = error_of(client.post(URL, content=body, headers=JSON), 400)
    assert (error["param"], error["code"]) == (None, "invalid_json")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_or_we_do_not_have(client: TestClient, value: str) -> None:
    content = f'{{"prompt": "a fox", "guidance_scale": {value}}}'
    error = error_of(client.post(URL, content=content, headers=JSON), 400)
    assert error["param"] in ("guidance_scale", None)


@pytest.mark.parametrize("body", [[], ["prompt"], "a fox", 3, None])
def test_a_body_that_is_no_object(client: TestClient, body: object) -> None:
    error = error_of(client.post(URL, content=json.dumps(body), headers=JSON), 400)
    assert "a JSON object" in error["message"]


def test_unknown_model(client: TestClient) -> None:
    error = error_of(client.post(URL, json={"prompt": "a fox", "model": "dall-e-3"}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "'dall-e-3'" in error["message"]
    assert "tiny" in error["message"]
    assert error_of(client.get("/v1/models/dall-e-3"), 404)["code"] == "model_not_found"


@pytest.mark.parametrize("excess", [1, 100_000, 40_000_000])
def test_body_too_large(client: TestClient, excess: int) -> None:
    error = error_of(client.post(URL, content=b" " * ((1 << 20) + excess)), 413)
    assert error["code"] == "body_too_large"
    assert "1048576" in error["message"]


def test_pictures_that_cannot_be_encoded_are_one_error(
    served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("secret path")

    monkeypatch.setattr("musiva.server.drawing.encode_picture", fail)
    app = create_app(served.engine, metrics=Metrics())
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.post(URL, json={"prompt": "a fox", "n": 3, "steps": 1})
        gc.collect()
    assert error_of(response, 500)["code"] == "internal_error"
    assert "secret" not in response.text
    assert "never retrieved" not in caplog.text


def test_largest_body_is_read(client: TestClient) -> None:
    body = json.dumps({"prompt": "a fox", "steps": 1}).encode()
    body += b" " * ((1 << 20) - len(body))
    assert client.post(URL, content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_page_from_elsewhere_may_send_unasked_draws_nothing(
    client: TestClient, served: Any, kind: str | None
) -> None:
    def drawn() -> float:
        return served.engine._loop.state.steps

    before = drawn()
    headers = {} if kind is None else {"Content-Type": kind}
    response = client.post(URL, content=json.dumps({"prompt": "a fox"}), headers=headers)
    error = error_of(response, 415)
    assert error["code"] == "unsupported_media_type"
    assert error["message"] == f"Content-Type: got {kind!r}; allowed: application/json"
    assert drawn() == before


def test_json_with_a_character_set_is_json(client: TestClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    body = json.dumps({"prompt": "a fox", "steps": 1})
    assert client.post(URL, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/image/generations", "/files/none.png"])
def test_unknown_path(client: TestClient, path: str) -> None:
    error = error_of(client.get(path), 404)
    assert error["code"] == "not_found"
    assert path in error["message"]


def test_wrong_method(client: TestClient) -> None:
    response = client.get(URL)
    error = error_of(response, 405)
    assert response.headers["allow"] == "POST"
    assert "POST" in error["message"]
    response = client.delete("/healthz")
    assert response.headers["allow"] == "GET, HEAD"
    assert error_of(response, 405)["message"].endswith("allowed: GET, HEAD")


def test_overload_is_429_with_retry_after(pipeline: Pipeline) -> None:
    with (
        Engine(pipeline, Engine.Config(max_waiting=1)) as engine,
        TestClient(create_app(engine, metrics=Metrics())) as client,
    ):
        stream = engine.stream("a fox", size=(128, 128), steps=1000)
        response = client.post(URL, json={"prompt": "a fox"})
        stream.close()  # type: ignore[attr-defined]
        error = error_of(response, 429)
        assert int(response.headers["retry-after"]) > 0
        assert error["code"] == "rate_limit_exceeded"
        wait_until(lambda: engine.num_waiting == 0)
        assert client.post(URL, json={"prompt": "a fox"}).status_code == 200


def test_closed_engine_is_503(pipeline: Pipeline) -> None:
    with Engine(pipeline) as engine:
        client = TestClient(create_app(engine, metrics=Metrics()))
        assert client.get("/healthz").json()["status"] == "ok"
    for response in (client.get("/healthz"), client.post(URL, json={"prompt": "a fox"})):
        assert error_of(response, 503)["code"] == "unavailable"


def test_engine_that_breaks_is_503(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no more disk")

    with Engine(pipeline, observe=fail) as engine:
        client = TestClient(create_app(engine, metrics=Metrics()))
        error = error_of(client.post(URL, json={"prompt": "a fox"}), 503)
        assert "no more disk" in error["message"]
        assert "no more disk" in error_of(client.get("/healthz"), 503)["message"]
    assert "the engine stopped" in caplog.text


def test_a_prediction_of_nan_fails_its_request_alone(tiny_model: Any) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    with (
        Engine(pipeline) as engine,
        TestClient(create_app(engine, metrics=Metrics())) as client,
    ):
        table = pipeline.denoiser.module.scale_shift_table
        kept = table.clone()
        with torch.no_grad():
            table.fill_(float("nan"))
        error = error_of(client.post(URL, json={"prompt": "a fox"}), 500)
        assert error["code"] == "non_finite"
        with torch.no_grad():
            table.copy_(kept)
        assert client.post(URL, json={"prompt": "a fox"}).status_code == 200


def test_an_error_nobody_foresaw_is_500_in_shape(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("secret path")

    monkeypatch.setattr("musiva.server.drawing.encode_picture", fail)
    with Engine(pipeline) as engine:
        app = create_app(engine, metrics=Metrics())
        client = TestClient(app, raise_server_exceptions=False)
        error = error_of(client.post(URL, json={"prompt": "a fox"}), 500)
        assert error["code"] == "internal_error"
        assert "secret" not in error["message"]


def test_stopping_ends_a_running_request_with_503(pipeline: Pipeline) -> None:
    """Waits neither for the pictures nor for the engine's step."""
    with Engine(pipeline) as engine:
        app = create_app(engine, metrics=Metrics(), config=AppConfig(threads=1))
        with TestClient(app) as client:
            assert client.portal is not None
            answer = client.portal.start_task_soon(lambda: _post(app, LONG_WORK))
            wait_until(lambda: engine.num_waiting == 1)
            start = time.monotonic()
            client.portal.call(app.state.stopping.set)
            response = answer.result(10)
            assert time.monotonic() - start < 2
            error = error_of(response, 503)
            assert "shutting down" in error["message"]
            wait_until(lambda: engine.num_waiting == 0)


async def _post(app: Any, body: object) -> Any:
    import httpx

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(URL, json=body)
