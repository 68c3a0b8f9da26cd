"""Deadlines, qualities and how a server stands, through the clients."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from musiva.client import Completed, Estimate, Picture, Progress, RemoteEngine, Seconds, Standing
from musiva.core.errors import InvalidInput, Overloaded
from musiva.core.types import Report
from musiva.engine import Engine, Pipeline, load_pipeline
from musiva.telemetry import Metrics
from tests.client.conftest import Ask, Live
from tests.client.scripted import STREAM, answer, completed, png, progress, scripted
from tests.server.live import live_server
from tests.server.priced import priced

SMALL = {"size": (16, 24), "steps": 3, "seed": 5}
FARED = {
    "quality_promised": 60,
    "quality_used": 70,
    "deadline_met": True,
    "seconds": {"queue": 1.5, "encode": 0.25, "denoise": 2, "decode": 0.5, "total": 4.25},
}


def refusal(code: str, *, retry_after: str, **more: object) -> bytes:
    error = {"message": "no", "type": "rate_limit_error", "code": code, "param": None, **more}
    return answer({"error": error}, "429 Too Many Requests", Retry_After=retry_after)


def test_a_deadline_that_cannot_be_kept_is_not_asked_for_again(ask: Ask) -> None:
    late = refusal(
        "deadline_unreachable", retry_after="1", predicted_seconds=9.5, retry_seconds=0.75
    )
    for call in ("generate", "stream", "jobs.create"):
        with scripted([late]) as server:
            error = ask(server.url, call, "a fox", deadline=8).failed(Overloaded, "no")
        assert isinstance(error, Overloaded)
        assert (error.reason, error.retry, error.finish) == ("deadline", 0.75, 9.5)
        assert error.answer is not None
        assert error.answer.code == "deadline_unreachable"


def test_a_full_queue_tells_when_to_come_back(ask: Ask) -> None:
    full = refusal("rate_limit_exceeded", retry_after="0")
    with scripted([full], [full], [full]) as server:
        error = ask(server.url, "generate", "a fox").failed(Overloaded)
    assert isinstance(error, Overloaded)
    assert (error.reason, error.retry, error.finish) == ("full", 0.0, None)
    # One that has had its share may come again.
    share = refusal("rate_limit_exceeded", retry_after="0", predicted_seconds=3, retry_seconds=2)
    with scripted([share]) as server:
        error = ask(server.url, "generate", "a fox", client={"retries": 0}).failed(Overloaded)
    assert isinstance(error, Overloaded)
    assert (error.reason, error.retry, error.finish) == ("share", 2, 3)
    with scripted([share], [STREAM, completed()]) as server:
        assert ask(server.url, "stream", "a fox").error is None


def test_how_a_picture_fared_is_told(ask: Ask) -> None:
    data = [{"b64_json": base64.b64encode(png(7)).decode(), "seed": 7, **FARED}]
    with scripted([answer({"data": data, "output_format": "png"})]) as server:
        (picture,) = ask(server.url, "generate", "a fox").value
    script = [STREAM, progress(0, predicted_seconds=4.5, quality=None), progress(2, quality=70)]
    with scripted([*script, completed(**FARED)]) as server:
        first, second, done = ask(server.url, "stream", "a fox").value
    for one in (picture, done.picture):
        assert isinstance(one, Picture)
        assert (one.quality_promised, one.quality_used, one.deadline_met) == (60, 70, True)
        assert one.seconds == Seconds(queue=1.5, encode=0.25, denoise=2, decode=0.5, total=4.25)
    assert isinstance(first, Progress)
    assert (first.predicted_seconds, first.quality) == (4.5, None)
    assert (second.predicted_seconds, second.quality) == (None, 70)


def test_an_engine_is_told_the_same() -> None:
    script = [STREAM, progress(0, predicted_seconds=4.5), progress(2, quality=70)]
    with (
        scripted([*script, completed(**FARED)]) as server,
        RemoteEngine(server.url) as engine,
    ):
        step, picture, done = engine.stream("a fox", min_quality=60, max_quality=90, priority=2)
    assert (step.kind, step.quality) == ("progress", 70)
    assert (picture.kind, picture.quality) == ("picture", 70)
    assert picture.report == Report(
        promised=60,
        used=70,
        seconds=4.25,
        encode=0.25,
        denoise=2,
        decode=0.5,
        deadline_met=True,
    )
    assert picture.report.waited == pytest.approx(1.5)
    assert done.kind == "done"
    body = server.bodies[0]
    assert (body["min_quality"], body["max_quality"], body["priority"]) == (60, 90, 2)


@pytest.mark.parametrize(
    "seconds",
    ["soon", {"queue": 1}, {**FARED["seconds"], "total": "4"}],  # type: ignore[dict-item]
)
def test_seconds_that_make_no_sense(ask: Ask, seconds: object) -> None:
    from musiva.core.errors import Unavailable

    with scripted([STREAM, completed(seconds=seconds)]) as server:
        ask(server.url, "stream", "a fox").failed(Unavailable, "not the answer of a Musiva server")


def test_a_real_server_keeps_a_deadline_or_says_no(ask: Ask, pipeline: Pipeline) -> None:
    with (
        Engine(pipeline, priced(1e-3)) as engine,
        live_server(engine, Metrics()) as (host, port),
        RemoteEngine(f"http://{host}:{port}") as remote,
    ):
        url = f"http://{host}:{port}"
        (picture,) = ask(url, "generate", "a fox", deadline=60, **SMALL).value
        assert picture.deadline_met is True
        assert picture.seconds.total > 0
        events = ask(url, "stream", "a fox", latency="batch", **SMALL).value
        assert events[0].predicted_seconds > 0
        assert isinstance(events[-1], Completed)
        for call in ("generate", "stream"):
            error = ask(url, call, "a fox", deadline=1e-3, **SMALL).failed(Overloaded)
            assert error.finish is not None
            assert error.finish > 0
            assert error.retry is not None
            assert error.retry > 0
        with pytest.raises(Overloaded) as caught:
            remote.generate("a fox", deadline=1e-3, **SMALL)
        assert caught.value.finish is not None
        with pytest.raises(InvalidInput, match="tenant: got 'ants'; allowed: default"):
            remote.generate("a fox", tenant="ants", **SMALL)


def test_how_a_real_server_stands(ask: Ask, live: Live) -> None:
    standing = ask(live.url, "standing").value
    assert isinstance(standing, Standing)
    assert (standing.waiting, standing.running, standing.quality) == (0, 0, None)
    with RemoteEngine(live.url) as engine:
        assert engine.standing().refused == 0


def test_what_a_real_server_would_give(ask: Ask, calibrated_model: Path) -> None:
    pipeline = load_pipeline(calibrated_model, device="cpu")
    with (
        Engine(pipeline, priced(1000.0)) as engine,
        live_server(engine, Metrics()) as (host, port),
    ):
        options = {"size": (48, 32), "steps": 20, "min_quality": 1, "max_quality": 100}
        asked = ask(f"http://{host}:{port}", "estimates", "a fox", deadline=30_000, **options)
    told = asked.value
    assert told.deadline == 30_000
    assert all(isinstance(one, Estimate) for one in told.estimates)
    assert [told.estimates[0].quality, told.estimates[-1].quality] == [100, 1]
    assert told.estimates[0].refusal is not None
    assert told.estimates[0].work >= told.estimates[-1].work
