"""Streams that go wrong: clients that leave or do not read, engines and servers that stop."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch

from musiva.core.errors import Cancelled, Unavailable
from musiva.core.types import StepPlan, StepResult
from musiva.engine import Engine, Pipeline, load_pipeline
from musiva.server import AppConfig, create_app
from musiva.server.submitted import Submitted
from musiva.telemetry import Metrics
from tests.server.live import connect, events_in, live_server, raw_request, slots_of, wait_until

URL = "/v1/images/generations"
LONG = {
    "prompt": "a fox",
    "stream": True,
    "progress": True,
    "partial_images": 100,
    "steps": 1000,
    "n": 4,
    "size": "64x64",
}


@pytest.fixture(scope="module")
def engine(pipeline: Pipeline) -> Iterator[Engine]:
    with Engine(pipeline) as engine:
        yield engine


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(scope="module")
def address(engine: Engine, metrics: Metrics) -> Iterator[tuple[str, int]]:
    with live_server(engine, metrics) as address:
        yield address


def nothing_is_left(engine: Engine) -> bool:
    return engine.num_waiting == engine.num_running == slots_of(engine) == 0


@pytest.mark.parametrize("received", [0, 1, 200, 1000, 20_000, 200_000])
def test_a_client_that_leaves_frees_its_work(
    engine: Engine, metrics: Metrics, address: tuple[str, int], received: int
) -> None:
    def cancelled() -> float:
        return metrics.registry.get_sample_value("musiva_requests_cancelled_total") or 0

    before = cancelled()
    client = connect(address)
    client.sendall(raw_request(URL, json.dumps(LONG).encode()))
    left = received
    while left > 0:
        left -= len(client.recv(min(left, 65536)))
    client.close()
    wait_until(lambda: cancelled() == before + 1, seconds=5)
    wait_until(lambda: nothing_is_left(engine), seconds=5)
    url = f"http://{address[0]}:{address[1]}{URL}"
    body = {"prompt": "a fox", "stream": True, "steps": 2}
    assert len(events_in(httpx.post(url, json=body).content)) == 1


def stalled(address: tuple[str, int], body: dict[str, object]) -> socket.socket:
    """A client that asks and then reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(address)
    client.sendall(raw_request(URL, json.dumps(body).encode()))
    return client


def test_a_client_that_does_not_read_is_given_up(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    config = AppConfig(stall_seconds=0.3, max_waiting=1)
    body = {**LONG, "n": 8, "size": "128x128", "steps": 400}
    with Engine(pipeline) as engine, live_server(engine, Metrics(), config) as (host, port):
        client = stalled((host, port), body)
        wait_until(lambda: engine.num_waiting == 1)
        wait_until(lambda: nothing_is_left(engine), seconds=20)
        assert "its stream is not read" in caplog.text
        response = httpx.post(f"http://{host}:{port}{URL}", json={"prompt": "a fox"})
        assert response.status_code == 200
        client.close()


@pytest.mark.parametrize("path", [URL, "/v1/images/edits"])
def test_a_body_that_does_not_end_is_not_waited_for(engine: Engine, path: str) -> None:
    whole = raw_request(path, b" " * 4000)
    config = AppConfig(body_seconds=0.3)
    with live_server(engine, Metrics(), config) as address, connect(address) as client:
        client.sendall(whole[:-3900])
        start, answer = time.monotonic(), b""
        for _ in range(4):  # it comes, but slowly
            time.sleep(0.02)
            client.sendall(b" ")
        while b"}}" not in answer:
            answer += client.recv(65536)
        assert 0.2 < time.monotonic() - start < 5
        head, _, content = answer.partition(b"\r\n\r\n")
        error = json.loads(content)["error"]
        if path != URL:
            assert head.startswith(b"HTTP/1.1 400 ")
            return
        assert head.startswith(b"HTTP/1.1 408 ")
        assert (error["type"], error["code"]) == ("invalid_request_error", "request_timeout")
        assert error["message"] == "body: not complete after 0.3 s"
        assert client.recv(1) == b""


def test_a_client_that_does_not_even_take_the_headers_is_given_up(engine: Engine) -> None:
    async def send(_: Any) -> None:
        await asyncio.Event().wait()

    async def ask() -> None:
        metrics, body = Metrics(), {"prompt": "a fox", "stream": True, "steps": 1000}
        app = create_app(engine, metrics=metrics, config=AppConfig(stall_seconds=0.1))
        content = [{"type": "http.request", "body": json.dumps(body).encode()}]

        async def receive() -> Any:
            return content.pop() if content else await Idle()()

        headers = [(b"host", b"test"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": URL, "raw_path": URL.encode()}
        scope |= {"query_string": b"", "headers": headers, "scheme": "http", "root_path": ""}
        async with asyncio.timeout(10):
            await app(scope, receive, send)
        assert metrics.registry.get_sample_value("musiva_requests_cancelled_total") == 1

    asyncio.run(ask())
    wait_until(lambda: nothing_is_left(engine), seconds=5)


class Idle:
    """An ASGI `receive` of a client that stays."""

    async def __call__(self) -> Any:
        await asyncio.Event().wait()


def test_a_slow_reader_finds_pictures_and_only_the_latest_of_the_rest(engine: Engine) -> None:
    async def read() -> list[tuple[str, int, int]]:
        request = engine.request("a fox", steps=12, num_images=3, previews=11, seed=1)
        kinds = ("progress", "preview", "picture")
        stopping = asyncio.Event()
        with Submitted(engine, request, Idle(), kinds=kinds, stopping=stopping) as submitted:
            while engine.num_before(request.id) is not None or engine.num_running:
                await asyncio.sleep(0.01)
                assert len(submitted._news) <= 3 * 2 + 1
            return [(e.kind, e.index, e.evaluation) async for e in submitted]

    assert asyncio.run(read()) == [("picture", i, 12) for i in range(3)]


def test_a_request_ends_for_the_client_for_the_server_and_on_its_own(engine: Engine) -> None:
    async def leave(kinds: tuple[str, ...], how: str) -> None:
        stopping = asyncio.Event()

        async def receive() -> Any:
            while how != "gone":
                await asyncio.sleep(10)
            return {"type": "http.disconnect"}

        request = engine.request("a fox", steps=1000)
        with Submitted(engine, request, receive, kinds=kinds, stopping=stopping) as submitted:
            if how == "stopping":
                stopping.set()
            if how == "task":
                raise asyncio.CancelledError
            while True:
                await submitted.next(0.05)

    for how, error in (
        ("gone", Cancelled),
        ("stopping", Unavailable),
        ("task", asyncio.CancelledError),
    ):
        with pytest.raises(error):
            asyncio.run(leave(("progress",), how))
        wait_until(lambda: nothing_is_left(engine), seconds=5)


def streaming(pool: ThreadPoolExecutor, url: str) -> Future[httpx.Response]:
    return pool.submit(httpx.post, url, json=LONG, timeout=30)


def failed(answer: Future[httpx.Response]) -> dict[str, Any]:
    """The error that ended a stream which had begun."""
    response = answer.result(20)
    assert response.status_code == 200
    *before, last = events_in(response.content)
    assert before, "it had not begun"
    assert all(event["type"] != "error" for event in before)
    assert list(last) == ["type", "error"]
    assert last["type"] == "error"
    assert set(last["error"]) == {"message", "type", "param", "code"}
    return last["error"]


def test_a_server_that_stops_ends_streams_with_an_error(pipeline: Pipeline) -> None:
    with ThreadPoolExecutor(2) as pool, Engine(pipeline) as engine:
        with live_server(engine, Metrics()) as (host, port):
            answers = [streaming(pool, f"http://{host}:{port}{URL}") for _ in range(2)]
            wait_until(lambda: engine.num_running == 2)
            time.sleep(0.1)
            start = time.monotonic()
        assert time.monotonic() - start < 2
        for answer in answers:
            error = failed(answer)
            assert (error["code"], error["type"]) == ("unavailable", "server_error")
            assert "shutting down" in error["message"]
        wait_until(lambda: nothing_is_left(engine), seconds=5)


def test_an_engine_that_closes_ends_streams_with_an_error(pipeline: Pipeline) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        Engine(pipeline) as engine,
        live_server(engine, Metrics()) as (host, port),
    ):
        answer = streaming(pool, f"http://{host}:{port}{URL}")
        wait_until(lambda: engine.num_running == 1)
        time.sleep(0.1)
        engine.close()
        assert failed(answer)["code"] == "unavailable"


def test_an_engine_that_breaks_ends_streams_with_an_error(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    def observe(plan: StepPlan, result: StepResult) -> None:
        if plan.number == 12:
            raise RuntimeError("no more disk")

    with (
        ThreadPoolExecutor(1) as pool,
        Engine(pipeline, observe=observe) as engine,
        live_server(engine, Metrics()) as (host, port),
    ):
        error = failed(streaming(pool, f"http://{host}:{port}{URL}"))
        assert error["code"] == "unavailable"
        assert "no more disk" in error["message"]
        assert httpx.get(f"http://{host}:{port}/healthz").status_code == 503
    assert "the engine stopped" in caplog.text


def test_a_prediction_that_is_not_finite_ends_its_stream_alone(tiny_model: Any) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    table = pipeline.denoiser.module.scale_shift_table
    kept = table.clone()

    def observe(plan: StepPlan, result: StepResult) -> None:
        with torch.no_grad():
            table.copy_(torch.full_like(kept, torch.nan) if plan.number == 12 else kept)

    with (
        ThreadPoolExecutor(1) as pool,
        Engine(pipeline, observe=observe) as engine,
        live_server(engine, Metrics()) as (host, port),
    ):
        url = f"http://{host}:{port}{URL}"
        error = failed(streaming(pool, url))
        assert (error["code"], error["type"]) == ("non_finite", "server_error")
        wait_until(lambda: nothing_is_left(engine), seconds=5)
        body = {"prompt": "a fox", "stream": True, "steps": 3}
        assert events_in(httpx.post(url, json=body).content)[-1]["seed"] >= 0


def test_an_error_nobody_foresaw_tells_nothing_of_its_insides(
    engine: Engine,
    address: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise OSError("secret path")

    monkeypatch.setattr("musiva.server.drawing.encode_picture", fail)
    body = {"prompt": "a fox", "stream": True, "steps": 3, "progress": True}
    response = httpx.post(f"http://{address[0]}:{address[1]}{URL}", json=body)
    last = events_in(response.content)[-1]
    assert last["error"]["code"] == "internal_error"
    assert "secret" not in response.text
    assert "secret path" in caplog.text
    wait_until(lambda: nothing_is_left(engine), seconds=5)
