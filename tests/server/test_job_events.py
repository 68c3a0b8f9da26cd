"""News of jobs: for those that come late, for several, for slow ones, and for those that leave."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from musiva.core.types import Action, Event, Path, Report, Request
from musiva.engine import Engine, Pipeline
from musiva.server import AppConfig
from musiva.server.answers import ErrorDetail
from musiva.server.job_events import JobEvents
from musiva.server.job_record import JobRecord
from musiva.server.shared import Shared
from musiva.telemetry import Metrics
from tests.server.live import connect, events_in, live_server, wait_until

JOBS = "/v1/jobs"
LONG = {"prompt": "a whale", "steps": 1000, "size": "64x64", "previews": 100}
TOTAL = 8


class Idle:
    """An ASGI `receive` of a client that stays."""

    async def __call__(self) -> Any:
        await asyncio.Event().wait()


class Fake:
    """A job that does what a test says."""

    def __init__(self, engine: Engine, num_images: int = 2) -> None:
        self.shared = Shared(engine, Metrics(), AppConfig(), lambda: 0.0)
        self.task = asyncio.create_task(self._work())
        request = Request(
            id="job",
            prompt="a fox",
            size=(16, 16),
            path=Path(steps=TOTAL),
            seed=1,
            guidance=1.0,
            num_images=num_images,
            deadline=9.0,
        )
        self.record = JobRecord(
            request, model="tiny", num_evaluations=TOTAL, created=1.0, now=2.0, predicted=3.0,
            task=self.task,
        )  # fmt: skip

    async def _work(self) -> None:
        await asyncio.Event().wait()

    def hear(self, kind: str, evaluation: int, index: int = 0, met: bool | None = None) -> None:
        shown = np.zeros((16, 16, 3), np.uint8) if kind != "progress" else None
        report = None
        if kind == "picture":
            report = Report(
                promised=100, used=100, seconds=1, encode=0, denoise=1, decode=0, deadline_met=met
            )
        self.record.hear(
            Event("job", kind, index, evaluation, TOTAL, shown, actions=(Action(),), report=report),
            now=4.0,
        )

    def listen(self) -> AsyncGenerator[BaseModel | None, None]:
        return JobEvents(self.shared, self.record)(Idle())


def told(event: BaseModel | None) -> tuple[object, ...]:
    """In short: what it is, of which picture, how far; of a job its status."""
    if event is None:
        return (None,)
    content = event.model_dump()
    kind = content["type"].removeprefix("job.")
    if "job" in content:
        return kind, content["job"]["status"]
    return kind, content["index"], content["evaluation"]


async def rest(events: AsyncGenerator[BaseModel | None, None]) -> list[tuple[object, ...]]:
    return [told(event) async for event in events]


async def some(
    events: AsyncGenerator[BaseModel | None, None], count: int
) -> list[tuple[object, ...]]:
    return [told(await anext(events)) for _ in range(count)]


@pytest.fixture(scope="module")
def engine(pipeline: Pipeline) -> Iterator[Engine]:
    with Engine(pipeline) as engine:
        yield engine


def test_a_reader_that_keeps_up_is_told_all(engine: Engine) -> None:
    async def test() -> None:
        job = Fake(engine)
        events = job.listen()
        assert await some(events, 2) == [(None,), ("status", "queued")]
        job.hear("progress", 1)
        assert await some(events, 2) == [("status", "running"), ("progress", 0, 1)]
        job.hear("preview", 1)
        assert await some(events, 1) == [("preview", 0, 1)]
        job.hear("progress", 1, index=1)
        assert await some(events, 1) == [("progress", 1, 1)]
        job.hear("picture", TOTAL)
        assert await some(events, 1) == [("progress", 0, TOTAL)]
        job.record.succeed(b"{}", 5.0)
        assert await rest(events) == [("completed", "succeeded")]

    asyncio.run(test())


def test_late_ones_get_the_present_first_and_several_the_same(engine: Engine) -> None:
    async def test() -> None:
        job = Fake(engine)
        for evaluation in range(1, 5):
            job.hear("progress", evaluation)
            job.hear("preview", evaluation)
        job.hear("progress", 2, index=1)
        now = [
            (None,),
            ("status", "running"),
            ("progress", 0, 4),
            ("preview", 0, 4),
            ("progress", 1, 2),
        ]
        readers = [job.listen() for _ in range(5)]
        for reader in readers:
            assert await some(reader, 5) == now
        # The picture that they are shown is encoded once.
        assert len({id(news.shown) for news in job.record.news.values() if news.shown}) == 1
        job.record.cancel(5.0)
        assert job.task.cancelling()
        for reader in readers:
            assert await rest(reader) == [("cancelled", "cancelled")]
        assert await rest(job.listen()) == [(None,), ("cancelled", "cancelled")]

    asyncio.run(test())


def test_a_slow_reader_finds_the_latest_and_misses_no_end(engine: Engine) -> None:
    async def test() -> None:
        job = Fake(engine)
        slow = job.listen()
        assert await some(slow, 2) == [(None,), ("status", "queued")]
        for evaluation in range(1, TOTAL):
            for index in range(2):
                job.hear("progress", evaluation, index)
                job.hear("preview", evaluation, index)
            assert len(job.record.news) == 4
        found = await some(slow, 3)
        assert found == [("status", "running"), ("progress", 0, 7), ("preview", 0, 7)]
        # While it reads, newer ones come.
        job.hear("picture", TOTAL, 1)
        job.hear("picture", TOTAL, 0)
        assert await some(slow, 2) == [("progress", 1, TOTAL), ("progress", 0, TOTAL)]
        # No pixels wait for anybody any more.
        assert all(news.event.picture is None for news in job.record.news.values())
        detail = ErrorDetail(message="no", type="server_error", code="x")
        job.record.fail(detail, 5.0)
        assert await rest(slow) == [("failed", "failed")]
        assert job.record.news == {}

    asyncio.run(test())


def test_quiet_streams_say_that_they_are_there(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musiva.server.job_events.QUIET_SECONDS", 0.01)

    async def test() -> None:
        events = Fake(engine).listen()
        assert await some(events, 4) == [(None,), ("status", "queued"), (None,), (None,)]
        await events.aclose()

    asyncio.run(test())


def test_whoever_leaves_ends_nothing_else(engine: Engine) -> None:
    async def test() -> None:
        job, gone = Fake(engine), asyncio.Event()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        leaves, stays = JobEvents(job.shared, job.record)(receive), job.listen()
        for reader in (leaves, stays):
            assert await some(reader, 2) == [(None,), ("status", "queued")]
        gone.set()
        assert await rest(leaves) == []
        job.record.succeed(b"{}", 5.0)
        assert await rest(stays) == [("completed", "succeeded")]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("met", "status", "expected"),
    [
        ([True, True], "succeeded", True),
        ([True, False], "succeeded", False),
        ([False], "running", False),
        ([True], "running", None),
    ],
)
def test_deadlines_are_met_by_all_pictures_or_not(
    engine: Engine, met: list[bool], status: str, expected: bool | None
) -> None:
    async def test() -> None:
        job = Fake(engine)
        for index, one in enumerate(met):
            job.hear("picture", TOTAL, index, one)
        if status == "succeeded":
            job.record.succeed(b"{}", 5.0)
        now = job.record.told()
        assert (now.status, now.deadline_met, now.deadline) == (status, expected, 11.0)
        assert now.progress.pictures == len(met)

    asyncio.run(test())


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with live_server(engine, Metrics()) as (host, port):
        yield f"http://{host}:{port}"


def test_events_over_a_connection(url: str) -> None:
    body = {"prompt": "a fox", "steps": 60, "size": "32x48", "n": 2, "previews": 50}
    job = httpx.post(url + JOBS, json=body).json()
    at = f"{url}{JOBS}/{job['id']}/events"
    with httpx.stream("GET", at, timeout=30) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        events = events_in(response.read())
    kinds = [event["type"] for event in events]
    assert kinds[0] == "job.status"
    assert kinds[-1] == "job.completed"
    assert kinds.count("job.completed") == 1
    for event in events:
        if event["type"] != "job.preview":
            continue
        image = Image.open(io.BytesIO(base64.b64decode(event["b64_json"])))
        assert (image.format, image.size) == ("JPEG", (32, 48))
        assert (event["output_format"], event["size"]) == ("jpeg", "32x48")
        assert 1 <= event["evaluation"] < event["num_evaluations"] == 60
    done = events[-1]["job"]
    assert done["progress"]["evaluation"] == done["progress"]["num_evaluations"] == 120
    again = events_in(httpx.get(at).content)
    assert [event["type"] for event in again] == ["job.completed"]
    head = httpx.head(at)
    assert head.status_code == 200
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_readers_that_leave_or_do_not_read_end_no_job(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    config, metrics = AppConfig(stall_seconds=0.3), Metrics()
    with (
        Engine(pipeline) as engine,
        live_server(engine, metrics, config) as (host, port),
        httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client,
    ):
        # Pictures enough to fill the buffers of a connection that nobody reads.
        job = client.post(JOBS, json={**LONG, "size": "128x128", "n": 8}).json()
        at = f"{JOBS}/{job['id']}"
        asked = f"GET {at}/events HTTP/1.1\r\nHost: test\r\n\r\n".encode()
        with connect((host, port)) as leaves:
            leaves.sendall(asked)
            content = b""
            while b"job.status" not in content:
                content += leaves.recv(1 << 16)
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            stalled.connect((host, port))
            stalled.sendall(asked)
            wait_until(lambda: "its stream is not read" in caplog.text, seconds=60)
        assert client.get(at).json()["status"] == "running"
        # Nothing of theirs was stopped.
        text = client.get("/metrics").text
        assert "musiva_requests_cancelled_total 0.0" in text
        assert client.post(f"{at}/cancel").status_code == 200
        wait_until(lambda: engine.num_waiting == 0)


def test_an_event_is_one_line_of_json(url: str) -> None:
    job = httpx.post(url + JOBS, json={"prompt": "a fox", "steps": 2}).json()
    content = httpx.get(f"{url}{JOBS}/{job['id']}/events", timeout=30).content
    blocks = [b for b in content.decode().split("\n\n") if b and not b.startswith(":")]
    for block in blocks:
        kind, data = block.split("\n")
        assert kind == f"event: {json.loads(data.removeprefix('data: '))['type']}"
