"""Deadlines, qualities and priorities: what is refused, what is told, what has no effect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from musiva.core.types import Request
from musiva.engine import Engine, Pipeline, load_pipeline
from musiva.server import create_app
from musiva.telemetry import Metrics
from tests.server.live import events_in
from tests.server.priced import priced

URL = "/v1/images/generations"
NOW = 1_900_000_000.0
BODY = {"prompt": "a fox", "steps": 4, "guidance_scale": 1}


def client_of(engine: Engine, metrics: Metrics | None = None) -> TestClient:
    return TestClient(create_app(engine, metrics=metrics or Metrics(), clock=lambda: NOW))


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    return response.json()["error"]


@pytest.fixture(scope="module")
def slow(pipeline: Pipeline) -> Iterator[TestClient]:
    """Believes that an evaluation takes 1000 s. Nothing may run on it, since then it would learn
    better.
    """
    with Engine(pipeline, priced(1000.0)) as engine, client_of(engine) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", [{"deadline": 10}, {"deadline": "2030-03-17T17:46:50Z"}])
def test_a_deadline_that_cannot_be_kept_is_refused_at_once(
    slow: TestClient, asked: dict[str, object], stream: bool
) -> None:
    """Also where a stream was asked for: by its status, before anything is told."""
    response = slow.post(URL, json={**BODY, "n": 2, "stream": stream, **asked})
    error = error_of(response, 429)
    assert response.headers["content-type"] == "application/json"
    assert set(error) == {
        *("message", "type", "param", "code"),
        *("predicted_seconds", "retry_seconds"),
    }
    assert (error["code"], error["type"]) == ("deadline_unreachable", "rate_limit_error")
    # Two pictures of four evaluations, and the margin.
    assert error["predicted_seconds"] == pytest.approx(8400, rel=0.01)
    assert error["retry_seconds"] == pytest.approx(8390, rel=0.01)
    assert int(response.headers["retry-after"]) - 1 <= error["retry_seconds"]
    assert int(response.headers["retry-after"]) >= error["retry_seconds"]
    assert "its deadline is 10 s; try again in" in error["message"]


def test_refusals_are_counted_by_reason(slow: TestClient) -> None:
    assert slow.post(URL, json={**BODY, "deadline": 1}).status_code == 429
    text = slow.get("/metrics").text
    (line,) = [x for x in text.splitlines() if x.startswith('musiva_refused_total{reason="dead')]
    assert float(line.split()[-1]) > 0
    assert "musiva_goodput 0.0" in text
    assert "musiva_attainment 0.0" in text


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("deadline", 0, "above 0"),
        ("deadline", -3.5, "above 0"),
        ("deadline", 86_401, "at most 86400"),
        ("deadline", True, "seconds from now"),
        ("deadline", "soon", "a date and time to come with its offset"),
        ("deadline", "2030-03-17T17:46:50", "a date and time to come with its offset"),
        ("deadline", "2030-03-17", "a date and time to come with its offset"),
        ("deadline", "2030-13-17T17:46:50Z", "a date and time that there is"),
        ("deadline", "0000-01-01T00:00:00Z", "a date and time that there is"),
        ("deadline", "2030-03-17T17:46:30Z", "a time to come; this is 10 s in the past"),
        ("deadline", "2030-03-17T17:46:40Z", "a time to come; this is 0 s in the past"),
        ("deadline", "2030-03-17T19:46:39.5+02:00", "a time to come; this is"),
        ("deadline", "1970-01-01T00:00:00Z", "a time to come"),
        ("deadline", "2031-03-17T17:46:50Z", "a time within 86400 s from now"),
        ("latency", "asap", "interactive, standard, relaxed, batch"),
        ("priority", 101, "from -100 to 100"),
        ("priority", 1.5, "from -100 to 100"),
        ("tenant", "acme", "default"),
        ("tenant", 3, "the name of a tenant"),
        ("max_quality", 90, "only beside a min_quality"),
        ("max_quality", 0, "from min_quality to 100"),
        ("max_quality", 101, "from min_quality to 100"),
    ],
)
def test_a_value_that_is_not_allowed(
    slow: TestClient, field: str, value: object, allowed: str
) -> None:
    error = error_of(slow.post(URL, json={**BODY, field: value}), 400)
    assert error["param"] == field
    assert error["message"].startswith(f"{field}: got ")
    assert allowed in error["message"]


def test_deadline_and_latency_are_one(slow: TestClient) -> None:
    body = {**BODY, "deadline": 1000, "latency": "standard"}
    error = error_of(slow.post(URL, json=body), 400)
    assert (error["param"], error["message"].split("; ")[1]) == (
        "latency",
        "allowed: none beside a deadline",
    )


def seen(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, **body: object) -> Request:
    """What the engine is asked for by a body."""
    found: list[Request] = []
    with Engine(pipeline, priced(0.001)) as engine, client_of(engine) as client:
        submit = engine.submit
        monkeypatch.setattr(engine, "submit", lambda r, *a: (found.append(r), submit(r, *a)))
        assert client.post(URL, json={**BODY, **body}).status_code == 200
    (request,) = found
    return request


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [
        (2.5, 2.5),
        (60, 60),
        ("2030-03-17T17:47:10Z", 30),
        ("2030-03-17t17:47:10.5z", 30.5),
        ("2030-03-17T19:47:10+02:00", 30),
        ("2030-03-17 12:47:10-05:00", 30),
    ],
)
def test_deadlines_as_seconds_and_as_times(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, deadline: object, seconds: float
) -> None:
    request = seen(pipeline, monkeypatch, deadline=deadline)
    assert request.deadline == pytest.approx(seconds)


def test_latency_priority_and_tenant(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"latency": "relaxed", "priority": -7, "tenant": "default", "n": 2}
    request = seen(pipeline, monkeypatch, **asked)
    # Sixteen times the dense run alone: two pictures of four evaluations.
    assert request.deadline == pytest.approx(16 * 8 * 0.001)
    assert (request.priority, request.tenant) == (-7, "default")
    assert seen(pipeline, monkeypatch, latency="batch").deadline is None


def test_answers_tell_how_a_picture_fared(pipeline: Pipeline) -> None:
    metrics = Metrics()
    config = priced(0.001)
    with (
        Engine(pipeline, config, observe=metrics.observe) as engine,
        client_of(engine, metrics) as client,
    ):
        (kept,) = client.post(URL, json={**BODY, "deadline": 600}).json()["data"]
        (calm,) = client.post(URL, json={**BODY, "response_format": "url"}).json()["data"]
        streamed = client.post(URL, json={**BODY, "deadline": 600, "stream": True}).content
        text = client.get("/metrics").text
    (completed,) = events_in(streamed)
    for told, met in ((kept, True), (calm, None), (completed, True)):
        assert (told["quality_promised"], told["quality_used"]) == (100, 100)
        assert told["deadline_met"] is met
        seconds = told["seconds"]
        assert list(seconds) == ["queue", "encode", "denoise", "decode", "total"]
        assert min(seconds.values()) >= 0
        parts = sum(seconds.values()) - seconds["total"]
        assert parts == pytest.approx(seconds["total"], abs=1e-3)
        assert seconds["total"] <= 600
    for line in (
        'musiva_pictures_by_deadline_total{deadline="met"} 2.0',
        'musiva_pictures_by_deadline_total{deadline="none"} 1.0',
        'musiva_quality_used_bucket{le="90.0"} 0.0',
        'musiva_quality_used_bucket{le="100.0"} 3.0',
        "musiva_backlog_seconds 0.0",
        "musiva_backlog_floor_seconds 0.0",
        "musiva_attainment 1.0",
    ):
        assert line in text, line


def test_a_late_picture_comes_all_the_same(pipeline: Pipeline) -> None:
    """A scheduler that lets all in says that it was late."""
    config = priced(0.001, discipline="edf")
    with Engine(pipeline, config) as engine, client_of(engine) as client:
        body = {**BODY, "steps": 50, "deadline": 1e-6}
        (late,) = client.post(URL, json=body).json()["data"]
        assert late["deadline_met"] is False
        text = client.get("/metrics").text
        assert 'musiva_pictures_by_deadline_total{deadline="late"} 1.0' in text
        assert "musiva_attainment 0.0" in text


def test_progress_tells_the_quality_and_once_when_it_should_be_done(pipeline: Pipeline) -> None:
    body = {**BODY, "steps": 8, "n": 2, "stream": True, "progress": True}
    with Engine(pipeline, priced(0.01)) as engine, client_of(engine) as client:
        events = events_in(client.post(URL, json=body).content)
    first, *others = [e for e in events if e["type"].endswith("progress")]
    assert (first["evaluation"], first["quality"]) == (0, None)
    # Two pictures of eight evaluations, and the margin.
    assert first["predicted_seconds"] == pytest.approx(0.168, rel=0.05)
    assert others
    assert {event["predicted_seconds"] for event in others} == {None}
    assert {event["quality"] for event in others if event["evaluation"]} == {100}


def test_a_floor_and_a_ceiling(calibrated_model: Path) -> None:
    pipeline = load_pipeline(calibrated_model, device="cpu")
    body = {"prompt": "a fox", "size": "48x32", "steps": 20, "seed": 4}
    floor = {"min_quality": 1, "max_quality": 100}
    with Engine(pipeline, priced(1e-4)) as engine, client_of(engine) as client:
        calm = client.post(URL, json={**body, **floor}).json()
        assert calm["warnings"] == []
        (picture,) = calm["data"]
        assert (picture["quality_promised"], picture["quality_used"]) == (1, 100)
        above = error_of(client.post(URL, json={**body, "min_quality": 80, "max_quality": 60}), 400)
        assert (above["param"], above["message"]) == (
            "max_quality",
            "max_quality: got 60; allowed: from 80, the min_quality, to 100",
        )
        same = client.post(URL, json={**body, "min_quality": 70, "max_quality": 70}).json()
        told = "max_quality: has no effect; there is nothing between it and min_quality"
        assert same["warnings"] == [told]
        auto = client.post(URL, json={**body, "quality": "auto", "min_quality": 1}).json()
        assert auto["data"][0]["quality_promised"] == 1
        streamed = {**body, **floor, "stream": True, "progress": True}
        events = events_in(client.post(URL, json=streamed).content)
        assert {e["quality"] for e in events if e["type"].endswith("progress")} <= {None, 100}
    fifo = priced(1e-4, discipline="fifo")
    with Engine(pipeline, fifo) as engine, client_of(engine) as client:
        told = client.post(URL, json={**body, **floor, "priority": 1, "deadline": 99}).json()
        assert [warning.split(":")[0] for warning in told["warnings"]] == [
            "min_quality",
            "deadline",
            "priority",
        ]
        named = client.post(URL, json={**body, "latency": "relaxed"}).json()["warnings"]
        assert named == ["latency: is told of, but has no effect; the scheduler is 'fifo'"]


def test_a_ceiling_without_a_calibration_has_no_effect(client: TestClient) -> None:
    body = {**BODY, "min_quality": 100, "max_quality": 100}
    told = client.post(URL, json=body).json()
    assert told["warnings"] == ["max_quality: has no effect; the model is not calibrated"]
    refused = client.post(URL, json={**BODY, "min_quality": 60, "max_quality": 100})
    assert error_of(refused, 400)["param"] == "min_quality"


def test_standing_and_estimates(calibrated_model: Path) -> None:
    pipeline = load_pipeline(calibrated_model, device="cpu")
    body = {"prompt": "a fox", "size": "48x32", "steps": 20, "guidance_scale": 1}
    with Engine(pipeline, priced(1000.0)) as engine, client_of(engine) as client:
        idle = client.get("/v1/standing")
        assert idle.headers["cache-control"] == "no-store"
        assert idle.json() == {
            "waiting": 0,
            "running": 0,
            "backlog_seconds": 0,
            "backlog_floor_seconds": 0,
            "goodput": 0,
            "attainment": None,
            "refused": 0,
            "quality": None,
        }
        asked = {**body, "min_quality": 1, "max_quality": 100, "deadline": 15_000, "stream": True}
        told = client.post("/v1/estimates", json=asked).json()
        assert told["deadline"] == 15_000
        dense, *others = told["estimates"]
        assert dense["quality"] == 100
        assert dense["work_seconds"] == pytest.approx(20_000, rel=0.01)
        assert "its deadline is 15000 s" in dense["refusal"]
        assert others[-1]["quality"] == 1
        assert others[-1]["refusal"] is None
        works = [one["work_seconds"] for one in (dense, *others)]
        assert works == sorted(works, reverse=True)
        named = client.post("/v1/estimates", json={**body, "latency": "standard"}).json()
        assert named["deadline"] == pytest.approx(80_000, rel=0.01)
        assert len(named["estimates"]) == 1
        assert error_of(client.post("/v1/estimates", json={"steps": 3}), 400)["param"] == "prompt"
        assert client.post(URL, json={**body, "deadline": 1}).status_code == 429
        now = client.get("/v1/standing").json()
        assert (now["waiting"], now["refused"], now["attainment"]) == (0, 1, 0)
        assert json.dumps(now)
