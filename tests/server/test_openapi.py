"""The published document against what the server really does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import jsonschema
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from starlette.routing import Route

from musiva.core.errors import Unavailable
from musiva.engine import LATENCIES, Engine, Pipeline, WorkerStanding
from musiva.server import AppConfig, create_app
from musiva.telemetry import Metrics
from tests.server.live import events_in, wait_until

URL = "/v1/images/generations"
JOBS, JOB = "/v1/jobs", "/v1/jobs/{job}"
ESTIMATES, STANDING = "/v1/estimates", "/v1/standing"
CLUSTER, DRAIN = "/v1/cluster", "/v1/cluster/{worker}/drain"
VIDEOS, VIDEO = "/v1/videos", "/v1/videos/{video}"
KEY = "sk-secret"


class Documented:
    """Holds answers against the document; `seen` says which statuses were shown."""

    def __init__(self, client: TestClient, engine: Engine) -> None:
        self.client, self.engine = client, engine
        self.document = client.get("/openapi.json").json()
        self.seen: set[tuple[str, str, str]] = set()

    def check(self, instance: object, schema: dict[str, Any]) -> None:
        whole = {**schema, "components": self.document["components"]}
        jsonschema.Draft202012Validator(whole).validate(instance)

    def ask(
        self, status: int, method: str, path: str, *, at: str | None = None, **more: Any
    ) -> Any:
        more["headers"] = {"Authorization": f"Bearer {KEY}", **more.get("headers", {})}
        response = self.client.request(method, at or path, **more)
        assert response.status_code == status, response.text
        documented = self.document["paths"][path][method.lower()]["responses"][str(status)]
        kind = response.headers["content-type"].split(";")[0]
        schema = documented["content"][kind].get("schema")
        if kind == "application/json":
            self.check(response.json(), schema)
        elif kind == "text/event-stream":
            for event in events_in(response.content):
                self.check(event, schema)
        for name in documented.get("headers", {}):
            assert name.lower() in response.headers
        self.seen.add((path, method.lower(), str(status)))
        return response


@pytest.fixture(scope="module")
def documented(pipeline: Pipeline) -> Iterator[Documented]:
    config = AppConfig(api_key=KEY, max_waiting=1)
    with (
        Engine(pipeline) as engine,
        TestClient(create_app(engine, metrics=Metrics(), config=config)) as client,
    ):
        yield Documented(client, engine)


def test_every_documented_answer_is_given_as_documented(
    documented: Documented, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = documented.ask
    body = {"prompt": "a fox", "n": 2, "steps": 4}
    ask(200, "POST", URL, json=body)
    tiled = {**body, "policy": "ras:warmup=1", "size": "48x32"}
    assert ask(200, "POST", URL, json=tiled).json()["data"][0]["tiles"] == [2, 3]
    shown = {"partial_images": 3, "progress": True}
    _ask_until_told(documented, '"active_tiles":[1,', {**tiled, **shown})
    url = ask(200, "POST", URL, json={**body, "style": "vivid", "response_format": "url"})
    _ask_until_told(documented, "partial_image", {**body, "partial_images": 2})
    _ask_until_told(documented, "progress", {**body, "progress": True})
    ask(400, "POST", URL, json={})
    ask(404, "POST", URL, json={**body, "model": "other"})
    ask(413, "POST", URL, content=b" " * ((1 << 20) + 1))
    ask(415, "POST", URL, content=b"{}", headers={"Content-Type": "text/plain"})
    ask(400, "POST", "/v1/images/edits", content=b"x")
    ask(400, "POST", "/v1/images/variations", content=b"x")
    ask(200, "GET", "/v1/models")
    ask(200, "GET", "/v1/models/{name}", at="/v1/models/tiny")
    ask(404, "GET", "/v1/models/{name}", at="/v1/models/other")
    at = url.json()["data"][0]["url"].split("testserver")[1]
    ask(200, "GET", "/files/{name}", at=at)
    ask(404, "GET", "/files/{name}", at="/files/none.png")
    ask(200, "GET", "/healthz")
    ask(200, "GET", "/metrics")
    for method, path, at in (
        ("POST", URL, URL),
        ("POST", "/v1/images/edits", "/v1/images/edits"),
        ("POST", "/v1/images/variations", "/v1/images/variations"),
        ("GET", "/v1/models", "/v1/models"),
        ("GET", "/v1/models/{name}", "/v1/models/tiny"),
        ("POST", JOBS, JOBS),
        ("GET", JOBS, JOBS),
        ("GET", JOB, f"{JOBS}/x"),
        ("GET", f"{JOB}/result", f"{JOBS}/x/result"),
        ("POST", f"{JOB}/cancel", f"{JOBS}/x/cancel"),
        ("GET", f"{JOB}/events", f"{JOBS}/x/events"),
        ("POST", VIDEOS, VIDEOS),
        ("GET", VIDEO, f"{VIDEOS}/x"),
        ("DELETE", VIDEO, f"{VIDEOS}/x"),
        ("GET", f"{VIDEO}/content", f"{VIDEOS}/x/content"),
        ("GET", STANDING, STANDING),
        ("POST", ESTIMATES, ESTIMATES),
        ("GET", CLUSTER, CLUSTER),
        ("POST", DRAIN, f"{CLUSTER}/0/drain"),
    ):
        ask(401, method, path, at=at, headers={"Authorization": "Bearer wrong"})
    _ask_for_jobs(documented)
    _ask_for_videos(documented)
    _ask_how_it_stands(documented, monkeypatch)
    _ask_for_workers(documented, monkeypatch)
    _ask_in_need(documented, pipeline, monkeypatch)
    listed = {
        (path, method, status)
        for path, methods in documented.document["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
    }
    assert listed == documented.seen


def _ask_until_told(documented: Documented, words: str, body: Mapping[str, object]) -> None:
    """A stream drops news that its reader was too slow for, so that one may not do."""
    streamed = {**body, "stream": True}
    wait_until(lambda: words in documented.ask(200, "POST", URL, json=streamed).text)


def _ask_for_jobs(documented: Documented) -> None:
    ask, client = documented.ask, documented.client
    body = {"prompt": "a fox", "steps": 1000, "size": "128x128", "previews": 2, "deadline": 3600}
    key = {"Idempotency-Key": "once"}
    at = ask(202, "POST", JOBS, json=body, headers=key).headers["location"]
    ask(200, "POST", JOBS, json=body, headers=key)
    ask(409, "POST", JOBS, json={**body, "steps": 2}, headers=key)
    ask(200, "GET", JOB, at=at)
    ask(409, "GET", f"{JOB}/result", at=f"{at}/result")
    ask(429, "POST", JOBS, json=body)
    ask(200, "POST", f"{JOB}/cancel", at=f"{at}/cancel")
    wait_until(lambda: client.get("/healthz").json()["running"] == 0)
    made = ask(202, "POST", JOBS, json={"prompt": "a fox", "steps": 60, "previews": 20})
    at = made.headers["location"]
    assert "job.completed" in ask(200, "GET", f"{JOB}/events", at=f"{at}/events").text
    ask(200, "GET", f"{JOB}/result", at=f"{at}/result")
    ask(409, "POST", f"{JOB}/cancel", at=f"{at}/cancel")
    for method, path in (("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("GET", "/events")):
        ask(404, method, f"{JOB}{path}", at=f"{JOBS}/gone{path}")
    ask(200, "GET", JOBS)
    ask(400, "GET", JOBS, at=f"{JOBS}?limit=0")
    for path in (JOBS, ESTIMATES, VIDEOS):
        ask(400, "POST", path, json={})
        ask(404, "POST", path, json={"prompt": "a fox", "model": "other"})
        ask(413, "POST", path, content=b" " * ((1 << 20) + 1))
        ask(415, "POST", path, content=b"{}", headers={"Content-Type": "text/plain"})


def _ask_for_videos(documented: Documented) -> None:
    """Of a model of pictures, a clip is one frame."""
    ask, client, key = documented.ask, documented.client, {"Idempotency-Key": "once-more"}
    body = {"prompt": "a fox", "steps": 1000, "size": "128x128"}
    at = f"{VIDEOS}/{ask(200, 'POST', VIDEOS, json=body, headers=key).json()['id']}"
    ask(409, "POST", VIDEOS, json={**body, "steps": 2}, headers=key)
    ask(409, "GET", f"{VIDEO}/content", at=f"{at}/content")
    ask(429, "POST", VIDEOS, json=body)
    ask(200, "DELETE", VIDEO, at=at)
    ask(404, "GET", VIDEO, at=at)
    ask(404, "DELETE", VIDEO, at=at)
    ask(404, "GET", f"{VIDEO}/content", at=f"{at}/content")
    wait_until(lambda: client.get("/healthz").json()["running"] == 0)
    made = ask(200, "POST", VIDEOS, json={"prompt": "a fox", "steps": 2, "output_format": "webp"})
    at = f"{VIDEOS}/{made.json()['id']}"
    wait_until(lambda: ask(200, "GET", VIDEO, at=at).json()["status"] == "completed")
    assert ask(200, "GET", f"{VIDEO}/content", at=f"{at}/content").content[8:12] == b"WEBP"


def _ask_how_it_stands(documented: Documented, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what a request would get, which many may not ask at a time."""
    client, body = documented.client, {"prompt": "a fox", "deadline": 20}
    documented.ask(200, "GET", STANDING)
    documented.ask(200, "POST", ESTIMATES, json=body)
    asked, answered = threading.Event(), threading.Event()

    def wait(*_: object) -> list[object]:
        asked.set()
        assert answered.wait(10)
        return []

    assert client.portal is not None
    key = {"Authorization": f"Bearer {KEY}"}
    engine = documented.engine
    with monkeypatch.context() as patch:
        patch.setattr(engine, "estimates", wait)
        first = client.portal.start_task_soon(lambda: _post(client.app, body, key, ESTIMATES))
        assert asked.wait(10)
        documented.ask(429, "POST", ESTIMATES, json=body)
        answered.set()
        assert first.result(10).status_code == 200
        patch.setattr(engine, "estimates", None)
        documented.ask(500, "POST", ESTIMATES, json=body)


def _ask_for_workers(documented: Documented, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine without any, and one that says that it has some."""
    ask, engine, drained = documented.ask, documented.engine, []
    assert ask(200, "GET", CLUSTER).json() == {"workers": []}
    for number, told in (("0", "none: this engine has no workers"), ("x", "a whole number")):
        error = ask(400, "POST", DRAIN, at=f"{CLUSTER}/{number}/drain").json()["error"]
        assert error["param"] == "worker"
        assert told in error["message"]
    worker = WorkerStanding(
        number=0,
        phase="draining",
        pid=None,
        life=2,
        requests=3,
        waiting=1,
        seconds=0.25,
        steps=7,
        store_bytes=1,
    )
    with monkeypatch.context() as patch:
        patch.setattr(engine, "members", lambda: [worker])
        patch.setattr(engine, "drain", drained.append)
        told = ask(200, "POST", DRAIN, at=f"{CLUSTER}/0/drain").json()
        assert (told["workers"][0]["life"], drained) == (2, [0])

        def alone(number: int) -> None:
            raise Unavailable(f"worker {number} is the only one that is ready")

        patch.setattr(engine, "drain", alone)
        ask(503, "POST", DRAIN, at=f"{CLUSTER}/0/drain")


def _ask_in_need(
    documented: Documented, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408, 429, 500 and 503."""
    client, body = documented.client, {"prompt": "a fox", "steps": 1000, "size": "128x128"}
    assert client.portal is not None
    key = {"Authorization": f"Bearer {KEY}"}
    long = client.portal.start_task_soon(lambda: _post(client.app, body, key))
    wait_until(lambda: client.get("/healthz").json()["running"] == 1)
    documented.ask(429, "POST", URL, json={"prompt": "a fox"})
    documented.ask(429, "POST", JOBS, json={"prompt": "a fox"})
    documented.ask(429, "POST", VIDEOS, json={"prompt": "a fox"})
    client.portal.call(client.app.state.stopping.set)  # type: ignore[attr-defined]
    assert long.result(10).status_code == 503
    documented.ask(503, "POST", URL, json={"prompt": "a fox"})
    documented.ask(503, "POST", JOBS, json={"prompt": "a fox"})
    documented.ask(503, "POST", VIDEOS, json={"prompt": "a fox"})
    config = AppConfig(api_key=KEY)
    with Engine(pipeline) as engine:
        app = create_app(engine, metrics=Metrics(), config=config)
        documented.client = TestClient(app)
        with monkeypatch.context() as patch:
            patch.setattr("musiva.server.drawing.encode_picture", None)
            documented.ask(500, "POST", URL, json={"prompt": "a fox", "steps": 1})
            patch.setattr("musiva.server.jobs_api.Drawing", None)
            documented.ask(500, "POST", JOBS, json={"prompt": "a fox", "steps": 1})
            documented.ask(500, "POST", VIDEOS, json={"prompt": "a fox", "steps": 1})
        slow = AppConfig(api_key=KEY, body_seconds=0)
        documented.client = TestClient(create_app(engine, metrics=Metrics(), config=slow))
        with monkeypatch.context() as patch:
            patch.setattr("fastapi.Request.stream", _never)
            for path in (URL, JOBS, ESTIMATES, VIDEOS):
                documented.ask(408, "POST", path, json=body)
    documented.client = TestClient(app)
    documented.ask(503, "GET", "/healthz")
    documented.ask(503, "GET", STANDING)
    documented.ask(503, "POST", ESTIMATES, json=body)
    documented.client = client


async def _never(_: Request) -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def _post(app: Any, body: object, headers: dict[str, str], path: str = URL) -> Any:
    import httpx

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path, json=body, headers=headers)


def test_paths_and_methods_are_those_of_the_app(documented: Documented) -> None:
    hidden = {"/", "/studio/{name}", "/openapi.json"}
    routes = {
        (route.path.replace(":path", ""), method.lower())
        for route in documented.client.app.routes  # type: ignore[attr-defined]
        if isinstance(route, Route) and route.path not in hidden
        for method in (route.methods or set()) - {"HEAD"}
    }
    listed = {
        (p, method) for p, methods in documented.document["paths"].items() for method in methods
    }
    assert listed == routes


def test_no_status_is_listed_that_is_never_sent(documented: Documented) -> None:
    text = json.dumps(documented.document)
    assert '"422"' not in text
    assert "HTTPValidationError" not in text


def test_the_key_is_documented_only_where_it_is_asked_for(
    documented: Documented, client: TestClient
) -> None:
    open_document = client.get("/openapi.json").json()
    assert "securitySchemes" not in open_document["components"]
    assert '"401"' not in json.dumps(open_document)
    post = documented.document["paths"][URL]["post"]
    assert post["security"] == [{"key": []}]


@pytest.mark.parametrize("path", [URL, JOBS, ESTIMATES, VIDEOS])
def test_the_examples_are_taken(documented: Documented, path: str) -> None:
    content = documented.document["paths"][path]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    for example in content["application/json"]["examples"].values():
        documented.check(example["value"], schema)


def test_names_are_those_of_the_engine(documented: Documented) -> None:
    schema = documented.document["components"]["schemas"]["ImagesBody"]["properties"]
    (latencies,) = [one["enum"] for one in schema["latency"]["anyOf"] if "enum" in one]
    assert latencies == list(LATENCIES)


# Values of every kind for every field; the schema and the server have to agree on each.
VALUES = (None, True, False, -1, 0, 1, 2, 1.5, 50, 100, 1001, 2**63, "", "a fox", [], {})
WORDS = ("auto", "33x33x33", "png", "url", "high", "low", "opaque", "vivid", "euler", "karras")
# What depends on the model, and on other fields, no schema can say.
FREE_TEXT = {"model", "sampler", "spacing", "policy", "prompt", "negative_prompt", "tenant"}
ONLY_WITH_OTHERS = {
    *("partial_format", "partial_images", "progress", "output_compression", "max_quality")
}
ONLY_CALIBRATED = {"quality", "min_quality"}
ONLY_OF_CLIPS = {"frames"}


def test_the_schema_and_the_server_agree_on_every_field(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()["components"]["schemas"]["ImagesBody"]
    validator = jsonschema.Draft202012Validator(schema)
    compared = 0
    for field in schema["properties"]:
        for value in (*VALUES, *WORDS):
            body = {"prompt": "a fox", "steps": 1, field: value}
            allowed = validator.is_valid(body)
            if allowed and (
                (field in FREE_TEXT and isinstance(value, str))
                or field in ONLY_WITH_OTHERS
                or (field in ONLY_CALIBRATED and isinstance(value, int) and value < 100)
                or (field in ONLY_OF_CLIPS and value not in (None, 1))
            ):
                continue
            answer = client.post(URL, json=body)
            assert answer.status_code == (200 if allowed else 400), (field, value, answer.text)
            compared += 1
    assert compared > 400
