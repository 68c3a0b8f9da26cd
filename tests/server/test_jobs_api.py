"""/v1/jobs: requests that outlive their connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import torch
from fastapi.testclient import TestClient

from musiva.engine import Engine, Pipeline, Scheduler, load_pipeline
from musiva.server import AppConfig, create_app
from musiva.telemetry import Metrics
from tests.server.live import slots_of, wait_until
from tests.server.priced import priced

URL, JOBS = "/v1/images/generations", "/v1/jobs"
SHORT = {"prompt": "a fox", "steps": 3, "seed": 5, "size": "16x24"}
LONG = {"prompt": "a whale", "steps": 1000, "size": "64x64"}


def made(client: TestClient, body: object, **headers: str) -> dict[str, Any]:
    response = client.post(JOBS, json=body, headers=headers)
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"{JOBS}/{job['id']}"
    return job


def looked_at(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    response = client.get(f"{JOBS}/{job['id']}")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    return response.json()


def ended(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    wait_until(lambda: looked_at(client, job)["ended"] is not None)
    return looked_at(client, job)


def cancel(client: TestClient, job: dict[str, Any]) -> httpx.Response:
    return client.post(f"{JOBS}/{job['id']}/cancel")


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    return error


@pytest.fixture
def client(pipeline: Pipeline) -> Iterator[TestClient]:
    """With an engine of its own, so that lists begin empty."""
    metrics = Metrics()
    with (
        Engine(pipeline, observe=metrics.observe) as engine,
        TestClient(create_app(engine, metrics=metrics)) as client,
    ):
        yield client


def test_a_job_from_its_creation_to_its_pictures(client: TestClient) -> None:
    job = made(client, {**SHORT, "n": 2, "deadline": 600})
    assert set(job) == {
        *("id", "object", "status", "created", "started", "ended", "model", "tenant"),
        *("progress", "predicted_seconds", "deadline", "deadline_met", "error"),
    }
    assert (job["object"], job["model"], job["tenant"]) == ("job", "tiny", "default")
    assert job["predicted_seconds"] >= 0
    assert job["deadline"] == pytest.approx(job["created"] + 600, abs=5)
    done = ended(client, job)
    assert (done["status"], done["deadline_met"], done["error"]) == ("succeeded", True, None)
    assert done["created"] <= done["started"] <= done["ended"]
    assert done["progress"] == {
        "evaluation": 6,
        "num_evaluations": 6,
        "pictures": 2,
        "num_pictures": 2,
    }
    answer = client.get(f"{JOBS}/{job['id']}/result")
    assert answer.headers["content-type"] == "application/json"
    direct = client.post(URL, json={**SHORT, "n": 2}).json()
    told = answer.json()
    assert set(told) == set(direct)
    for mine, theirs in zip(told["data"], direct["data"], strict=True):
        assert (mine["b64_json"], mine["seed"]) == (theirs["b64_json"], theirs["seed"])
    assert [picture["deadline_met"] for picture in told["data"]] == [True, True]


def test_a_job_warns_and_links_like_any_request(client: TestClient) -> None:
    job = made(client, {**SHORT, "style": "vivid", "response_format": "url"})
    ended(client, job)
    told = client.get(f"{JOBS}/{job['id']}/result").json()
    assert told["warnings"] == ["style: has no effect; describe the style in the prompt"]
    assert client.get(told["data"][0]["url"]).headers["content-type"] == "image/png"


def test_a_running_job_is_cancelled_once_and_again(client: TestClient) -> None:
    job = made(client, LONG)
    wait_until(lambda: looked_at(client, job)["status"] == "running")
    error = refused(client.get(f"{JOBS}/{job['id']}/result"), 409, "not_ready")
    assert error["message"] == f"job {job['id']} is running"
    first, again = cancel(client, job), cancel(client, job)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json() == looked_at(client, job)
    told = first.json()
    assert (told["status"], told["error"], told["deadline_met"]) == ("cancelled", None, None)
    assert told["started"] <= told["ended"]
    refused(client.get(f"{JOBS}/{job['id']}/result"), 409, "job_cancelled")
    wait_until(lambda: client.get("/healthz").json()["running"] == 0)


def test_a_waiting_job_is_cancelled(pipeline: Pipeline) -> None:
    config = Engine.Config(scheduler=Scheduler.Config(max_rows=1))
    with (
        Engine(pipeline, config) as engine,
        TestClient(create_app(engine, metrics=Metrics())) as client,
    ):
        first, second = made(client, LONG), made(client, LONG)
        wait_until(lambda: looked_at(client, first)["status"] == "running")
        assert looked_at(client, second)["status"] == "queued"
        told = cancel(client, second).json()
        assert (told["status"], told["started"]) == ("cancelled", None)
        wait_until(lambda: engine.num_waiting == 1)
        assert looked_at(client, first)["status"] == "running"
        cancel(client, first)
        wait_until(lambda: engine.num_waiting == slots_of(engine) == 0)


def test_what_has_ended_is_not_cancelled(client: TestClient) -> None:
    job = made(client, SHORT)
    ended(client, job)
    error = refused(cancel(client, job), 409, "job_ended")
    assert error["param"] == "job"
    assert error["message"].endswith("a job that has not ended; this one has succeeded")
    assert client.get(f"{JOBS}/{job['id']}/result").status_code == 200


@pytest.mark.parametrize("end", ["", "/result", "/events", "/cancel"])
@pytest.mark.parametrize("name", ["gone", "0" * 32, "a%20b", "%F0%9F%A6%8A"])
def test_jobs_that_there_are_not(client: TestClient, name: str, end: str) -> None:
    ask: Callable[[str], httpx.Response] = client.post if end == "/cancel" else client.get
    error = refused(ask(f"{JOBS}/{name}{end}"), 404, "not_found")
    assert error["param"] == "job"
    assert error["message"].endswith("allowed: the id of a job that is still kept")


def test_a_server_that_starts_again_knows_no_jobs(pipeline: Pipeline) -> None:
    with Engine(pipeline) as engine:
        with TestClient(create_app(engine, metrics=Metrics())) as client:
            job = made(client, SHORT, **{"Idempotency-Key": "once"})
            ended(client, job)
        with TestClient(create_app(engine, metrics=Metrics())) as client:
            assert client.get(f"{JOBS}/{job['id']}").status_code == 404
            assert client.get(JOBS).json()["data"] == []
            again = made(client, SHORT, **{"Idempotency-Key": "once"})
            assert again["id"] != job["id"]


def test_a_job_that_fails_tells_why(tiny_model: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    with torch.no_grad():
        pipeline.denoiser.module.scale_shift_table.fill_(float("nan"))
    with (
        Engine(pipeline) as engine,
        TestClient(create_app(engine, metrics=Metrics())) as client,
    ):
        job = made(client, {**SHORT, "deadline": 99})
        told = ended(client, job)
        assert (told["status"], told["deadline_met"]) == ("failed", None)
        assert (told["error"]["code"], told["error"]["type"]) == ("non_finite", "server_error")
        error = refused(client.get(f"{JOBS}/{job['id']}/result"), 409, "job_failed")
        assert error["message"] == f"job {job['id']} failed: {told['error']['message']}"
        refused(cancel(client, job), 409, "job_ended")
        assert f"request {job['id']} failed" in caplog.text


def test_an_error_nobody_foresaw_tells_nothing_of_its_insides(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("secret path")

    monkeypatch.setattr("musiva.server.drawing.encode_picture", fail)
    job = made(client, {**SHORT, "n": 3})
    told = ended(client, job)
    assert (told["status"], told["error"]["code"]) == ("failed", "internal_error")
    assert "secret" not in str(told)
    assert "secret path" in caplog.text


def test_a_server_that_stops_ends_its_jobs(client: TestClient) -> None:
    job = made(client, LONG)
    assert client.portal is not None
    client.portal.call(client.app.state.stopping.set)  # type: ignore[attr-defined]
    told = ended(client, job)
    assert (told["status"], told["error"]["code"]) == ("failed", "unavailable")
    refused(client.post(JOBS, json=SHORT), 503, "unavailable")


def test_the_newest_come_first_page_by_page(client: TestClient) -> None:
    assert client.get(JOBS).json() == {"object": "list", "data": [], "has_more": False}
    jobs = [made(client, {**SHORT, "seed": seed}) for seed in range(5)]
    for job in jobs:
        ended(client, job)
    running = made(client, LONG)
    names = [job["id"] for job in (running, *reversed(jobs))]

    def page(**query: object) -> tuple[list[str], bool]:
        told = client.get(JOBS, params=query).json()  # type: ignore[arg-type]
        return [job["id"] for job in told["data"]], told["has_more"]

    assert page() == (names, False)
    assert page(limit=2) == (names[:2], True)
    assert page(limit=2, after=names[1]) == (names[2:4], True)
    assert page(limit=2, after=names[3]) == (names[4:], False)
    assert page(after=names[-1]) == ([], False)
    assert page(status="succeeded", limit=5) == (names[1:], False)
    assert page(status="succeeded", limit=4) == (names[1:5], True)
    assert page(status="failed") == ([], False)
    cancel(client, running)
    assert page(status="cancelled") == ([running["id"]], False)


@pytest.mark.parametrize(
    ("query", "param", "told"),
    [
        ("limit=0", "limit", "a whole number from 1 to 100"),
        ("limit=101", "limit", "a whole number from 1 to 100"),
        ("limit=ten", "limit", "a whole number from 1 to 100"),
        ("limit=", "limit", "a whole number from 1 to 100"),
        ("limit=%D9%A3", "limit", "a whole number from 1 to 100"),
        ("status=done", "status", "queued, running, succeeded, failed, cancelled"),
        ("after=gone", "after", "the id of a job that is still kept"),
        ("before=1&page=2", "before", "before, page: no such parameter"),
    ],
)
def test_questions_that_no_list_answers(
    client: TestClient, query: str, param: str, told: str
) -> None:
    response = client.get(f"{JOBS}?{query}")
    code = "unknown_parameter" if param == "before" else "invalid_value"
    error = refused(response, 400, code)
    assert error["param"] == param
    assert told in error["message"]


@pytest.mark.parametrize("field", ["stream", "partial_images", "partial_format", "progress"])
def test_what_only_streams_have_is_refused(client: TestClient, field: str) -> None:
    error = refused(client.post(JOBS, json={**SHORT, field: None}), 400, "unknown_parameter")
    assert error["param"] == field
    assert "previews" in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", "33x32"), ("previews", 101), ("n", 9), ("deadline", -1), ("tenant", "acme")],
)
def test_a_value_that_is_not_allowed(client: TestClient, field: str, value: object) -> None:
    error = refused(client.post(JOBS, json={**SHORT, field: value}), 400, "invalid_value")
    assert error["param"] == field
    assert client.get(JOBS).json()["data"] == []


def test_a_deadline_that_cannot_be_kept_makes_no_job(pipeline: Pipeline) -> None:
    with (
        Engine(pipeline, priced(1000.0)) as engine,
        TestClient(create_app(engine, metrics=Metrics())) as client,
    ):
        key = {"Idempotency-Key": "late"}
        response = client.post(JOBS, json={**SHORT, "deadline": 5}, headers=key)
        error = refused(response, 429, "deadline_unreachable")
        assert error["predicted_seconds"] > 1000
        assert int(response.headers["retry-after"]) >= error["retry_seconds"]
        assert client.get(JOBS).json()["data"] == []
        # No job, no claim: the key may come with another body.
        calm = client.post(JOBS, json=SHORT, headers=key)
        assert calm.status_code == 202
        wait_until(lambda: engine.num_waiting == 0)


def test_jobs_take_places_until_they_end(pipeline: Pipeline) -> None:
    config = AppConfig(max_waiting=2)
    with (
        Engine(pipeline) as engine,
        TestClient(create_app(engine, metrics=Metrics(), config=config)) as client,
    ):
        jobs = [made(client, LONG) for _ in range(2)]
        for path in (JOBS, URL):
            full = client.post(path, json=SHORT)
            error = refused(full, 429, "rate_limit_exceeded")
            assert set(error) == {"message", "type", "param", "code"}
            assert int(full.headers["retry-after"]) >= 1
        assert 'musiva_refused_total{reason="full"} 2.0' in client.get("/metrics").text
        cancel(client, jobs[0])
        made(client, SHORT)
        cancel(client, jobs[1])
        wait_until(lambda: engine.num_waiting == 0)


@pytest.mark.parametrize("key", ["x", "!" * 255, "7c9e6679-7425-40de-944b-e07fc1f90ae7"])
def test_a_key_gives_the_first_job_again(client: TestClient, key: str) -> None:
    headers = {"Idempotency-Key": key}
    first = made(client, SHORT, **headers)
    done = ended(client, first)
    # The same values, written another way.
    for body in (SHORT, {**dict(reversed(SHORT.items())), "n": None}):
        again = client.post(JOBS, json=body, headers=headers)
        assert again.status_code == 200
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["location"] == f"{JOBS}/{first['id']}"
        assert again.json() == done
    error = refused(
        client.post(JOBS, json={**SHORT, "steps": 4}, headers=headers), 409, "idempotency_conflict"
    )
    assert error["param"] == "Idempotency-Key"
    other = client.post(JOBS, json=SHORT, headers={"Idempotency-Key": f"{key[1:]}y"})
    assert other.status_code == 202
    assert "idempotent-replayed" not in other.headers


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "schlüssel".encode("latin-1")])
def test_keys_that_are_none(client: TestClient, key: str | bytes) -> None:
    error = refused(
        client.post(JOBS, json=SHORT, headers={"Idempotency-Key": key}),  # type: ignore[dict-item]
        400,
        "invalid_value",
    )
    assert error["param"] == "Idempotency-Key"
    assert "1 to 255 visible ASCII characters" in error["message"]


def test_the_same_key_at_the_same_time_makes_one_job(pipeline: Pipeline) -> None:
    async def ask(app: Any) -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"Idempotency-Key": "once"}
            asked = (client.post(JOBS, json=SHORT, headers=headers) for _ in range(50))
            answers = list(await asyncio.gather(*asked))
            while (await client.get(f"{JOBS}/{answers[0].json()['id']}")).json()["ended"] is None:
                await asyncio.sleep(0.01)
            answers.append(await client.get(JOBS))
            return answers

    with Engine(pipeline) as engine:
        *answers, page = asyncio.run(ask(create_app(engine, metrics=Metrics())))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [job["id"] for job in page.json()["data"]] == [answers[0].json()["id"]]


def test_a_job_outlives_whoever_asked_for_it(pipeline: Pipeline) -> None:
    """Nothing of it hangs on the connection: the one that leaves gets no answer."""

    async def leave(app: Any) -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"Idempotency-Key": "left"}
            asking = asyncio.ensure_future(client.post(JOBS, json=SHORT, headers=headers))
            while not engine.num_waiting:
                await asyncio.sleep(0)
            asking.cancel()
            again = await client.post(JOBS, json=SHORT, headers=headers)
            assert again.status_code == 200
            job = again.json()
            while job["ended"] is None:
                await asyncio.sleep(0.01)
                job = (await client.get(f"{JOBS}/{job['id']}")).json()
            assert job["status"] == "succeeded"

    with Engine(pipeline) as engine:
        asyncio.run(leave(create_app(engine, metrics=Metrics())))
