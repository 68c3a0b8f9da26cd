"""Jobs through the clients: against a script, and against a real server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from musiva.client import AsyncClient, Client, Job, JobPage, Preview, Progress
from musiva.core.errors import (
    Cancelled,
    ExecutionFailed,
    InvalidInput,
    NonFinite,
    Overloaded,
    Unavailable,
)
from musiva.engine import Engine, Pipeline
from musiva.telemetry import Metrics
from tests.client.conftest import Ask
from tests.client.scripted import RESET, STREAM, answer, event, png, scripted
from tests.server.live import live_server, wait_until

SMALL: dict[str, Any] = {"size": (16, 24), "steps": 3, "seed": 5}
LONG: dict[str, Any] = {"size": (64, 64), "steps": 1000}
BUSY = answer({"error": {"message": "busy", "code": "unavailable"}}, "503 Busy")


def job(status: str = "queued", **more: object) -> dict[str, object]:
    progress = {"evaluation": 0, "num_evaluations": 8, "pictures": 0, "num_pictures": 2}
    times = {"created": 1.5, "started": None, "ended": None}
    return {
        **{"id": "j1", "object": "job", "status": status, "model": "tiny", "tenant": "default"},
        **{"progress": progress, **times, "predicted_seconds": 3.5, "deadline": None},
        **{"deadline_met": None, "error": None, **more},
    }


def accepted(**more: object) -> bytes:
    return answer(job(**more), "202 Accepted", Location="/v1/jobs/j1")


def refused(status: str, message: str, code: str, param: str | None = None) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "code": code, "param": param}
    return answer({"error": error}, status)


def pictures() -> bytes:
    data = [{"b64_json": base64.b64encode(png(7)).decode(), "seed": 7}]
    return answer({"data": data, "output_format": "png"})


def test_a_job_is_made_with_a_key_that_all_attempts_share(ask: Ask) -> None:
    with scripted([BUSY], [RESET], [accepted()]) as server:
        made = ask(server.url, "jobs.create", "a fox", previews=3, seed=1, size=(8, 8)).value
    assert isinstance(made, Job)
    assert (made.id, made.status, made.created, made.predicted_seconds) == (
        "j1",
        "queued",
        1.5,
        3.5,
    )
    assert (made.evaluation, made.num_evaluations, made.pictures, made.num_pictures) == (0, 8, 0, 2)
    assert not made.has_ended
    assert server.bodies == [{"prompt": "a fox", "seed": 1, "size": "8x8", "previews": 3}] * 3
    keys = {
        line.split(": ")[1]
        for head in server.heads
        for line in head.lower().splitlines()
        if line.startswith("idempotency-key: ")
    }
    assert len(server.heads) == 3
    assert len(keys) == 1
    assert len(keys.pop()) == 32


def test_a_key_of_ones_own(ask: Ask) -> None:
    with scripted([accepted()]) as server:
        ask(server.url, "jobs.create", "a fox", idempotency_key="order-66")
    assert "idempotency-key: order-66" in server.heads[0].lower()
    assert "previews" not in server.bodies[0]
    told = "Idempotency-Key: got 'order-66'; allowed: another one; it came with another body"
    conflict = refused("409 Conflict", told, "idempotency_conflict", "Idempotency-Key")
    with scripted([conflict]) as server:
        asked = ask(server.url, "jobs.create", "a fox", idempotency_key="order-66")
        asked.failed(InvalidInput, "idempotency_key: got 'order-66'; allowed: another one")
    for bad in ("", "ä", "two\nlines", 7):
        ask(server.url, "jobs.create", "a fox", idempotency_key=bad).failed(InvalidInput)


def test_paths_and_queries(ask: Ask) -> None:
    listed = answer({"object": "list", "data": [job(), job("failed")], "has_more": True})
    with scripted([answer(job())], [answer(job("cancelled"))], [pictures()], [listed]) as server:
        assert ask(server.url, "jobs.get", "a/b ü").value.status == "queued"
        assert ask(server.url, "jobs.cancel", "j1").value.status == "cancelled"
        assert ask(server.url, "jobs.result", "j1").value[0].seed == 7
        page = ask(server.url, "jobs.list", limit=2, after="j&0", status="failed").value
    assert isinstance(page, JobPage)
    assert ([one.status for one in page.jobs], page.has_more) == (["queued", "failed"], True)
    assert [head.split(" HTTP")[0] for head in server.heads] == [
        "GET /v1/jobs/a%2Fb%20%C3%BC",
        "POST /v1/jobs/j1/cancel",
        "GET /v1/jobs/j1/result",
        "GET /v1/jobs?limit=2&after=j%260&status=failed",
    ]
    for bad in ("", None, 7):
        ask(server.url, "jobs.get", bad).failed(InvalidInput, "job: got")


@pytest.mark.parametrize(
    ("script", "kind", "told"),
    [
        (
            ("404 Not Found", "job: got 'j1'; allowed: the id of a job", "not_found", "job"),
            InvalidInput,
            "job: got 'j1'; allowed: the id of a job",
        ),
        (("404 Not Found", "GET /v1/jobs: Not Found", "not_found"), InvalidInput, "base_url: got"),
        (("409 Conflict", "job j1 is running", "not_ready"), Unavailable, "job j1 is running"),
        (("409 Conflict", "job j1 failed: NaN", "job_failed"), ExecutionFailed, "job j1 failed"),
        (("409 Conflict", "job j1 was cancelled", "job_cancelled"), Cancelled, "was cancelled"),
        (
            ("409 Conflict", "job: got 'j1'; allowed: one that has not ended", "job_ended", "job"),
            InvalidInput,
            "job: got 'j1'; allowed: one that has not ended",
        ),
    ],
)
def test_what_a_server_refuses(
    ask: Ask, script: tuple[str, ...], kind: type[Exception], told: str
) -> None:
    for call in ("jobs.result", "jobs.get", "jobs.cancel", "jobs.events"):
        with scripted([refused(*script)]) as server:
            ask(server.url, call, "j1").failed(kind, told)  # type: ignore[arg-type]


def progress(evaluation: int, index: int = 0) -> bytes:
    numbers = {"index": index, "evaluation": evaluation, "num_evaluations": 4}
    return event("job.progress", **numbers, computed=1, cost=1.0, share=0.25, quality=80)


def preview(evaluation: int, index: int = 0) -> bytes:
    numbers = {"index": index, "evaluation": evaluation, "num_evaluations": 4}
    content = base64.b64encode(png(1)).decode()
    return event("job.preview", b64_json=content, output_format="jpeg", **numbers)


def test_events(ask: Ask) -> None:
    script = [
        STREAM,
        event("job.status", job=job()),
        b": still at it\n\n",
        event("job.status", job=job("running")),
        progress(1) + preview(1) + preview(2) + preview(2, index=1)[:30],
        preview(2, index=1)[30:],
        event("job.mood", better="than ever"),
        event("job.completed", job=job("succeeded", deadline_met=True)),
    ]
    with scripted(script) as server:
        events = ask(server.url, "jobs.events", "j1").value
    assert [type(one) for one in events] == [Job, Job, Progress, *[Preview] * 3, Job]
    assert (events[2].evaluation, events[2].quality, events[2].waiting) == (1, 80, None)
    assert [(one.index, one.number, one.evaluation) for one in events[3:6]] == [
        (0, 0, 1),
        (0, 1, 2),
        (1, 0, 2),
    ]
    assert (events[-1].status, events[-1].deadline_met) == ("succeeded", True)
    assert events[-1].has_ended


def test_events_that_break_off_or_make_no_sense(ask: Ask) -> None:
    begun = [STREAM, event("job.status", job=job("running")), progress(1)]
    with scripted([*begun]) as server:
        asked = ask(server.url, "jobs.events", "j1")
        asked.failed(Unavailable, "the stream ended while job j1 was running")
    assert len(asked.value) == 2
    for bad in (event("job.status"), event("job.status", job={}), event("job.failed", job=7)):
        with scripted([STREAM, bad]) as server:
            asked = ask(server.url, "jobs.events", "j1")
            asked.failed(Unavailable, "not the answer of a Musiva server: event 'job.")


def test_waiting_goes_on_where_a_connection_broke(ask: Ask) -> None:
    running = event("job.status", job=job("running"))
    done = event("job.completed", job=job("succeeded"))
    breaks = [STREAM, running, 0.1, RESET]
    with scripted(breaks, breaks, breaks, breaks, [STREAM, done], [pictures()]) as server:
        (picture,) = ask(server.url, "jobs.wait", "j1").value
    assert picture.seed == 7
    assert len(server.heads) == 6
    failed = job("failed", error={"message": "NaN in step 3", "code": "non_finite", "type": "x"})
    with scripted([STREAM, running, event("job.failed", job=failed)]) as server:
        ask(server.url, "jobs.wait", "j1").failed(NonFinite, "NaN in step 3")
    gone = refused("409 Conflict", "job j1 was cancelled", "job_cancelled")
    cancelled = event("job.cancelled", job=job("cancelled"))
    with scripted([STREAM, cancelled], [gone]) as server:
        ask(server.url, "jobs.wait", "j1").failed(Cancelled, "was cancelled")
    with scripted([BUSY], [BUSY], [BUSY]) as server:
        ask(server.url, "jobs.wait", "j1").failed(Unavailable, "busy")


@pytest.fixture(scope="module")
def real(pipeline: Pipeline) -> Iterator[tuple[Engine, str]]:
    with (
        Engine(pipeline) as engine,
        live_server(engine, Metrics()) as (host, port),
    ):
        yield engine, f"http://{host}:{port}"


def test_a_job_on_a_real_server(ask: Ask, real: tuple[Engine, str]) -> None:
    engine, url = real
    made = ask(url, "jobs.create", "a fox", num_images=2, previews=2, deadline=600, **SMALL).value
    assert made.deadline == pytest.approx(made.created + 600, abs=5)
    drawn = ask(url, "jobs.wait", made).value
    expected = engine.generate("a fox", num_images=2, **SMALL)
    for picture, mine in zip(drawn, expected, strict=True):
        assert np.array_equal(np.asarray(picture.image), np.asarray(mine))
        assert picture.deadline_met is True
    done = ask(url, "jobs.get", made.id).value
    assert (done.status, done.pictures, done.deadline_met) == ("succeeded", 2, True)
    assert ask(url, "jobs.events", done).value == [done]
    assert ask(url, "jobs.list", limit=1).value.jobs == (done,)
    assert [one.content for one in ask(url, "jobs.result", done).value] == [
        one.content for one in drawn
    ]
    ask(url, "jobs.cancel", done).failed(InvalidInput, "this one has succeeded")
    ask(url, "jobs.get", "gone").failed(InvalidInput, "job: got 'gone'; allowed: the id of a job")
    ask(url, "jobs.list", limit=0).failed(InvalidInput, "limit: got 0; allowed: a whole number")
    ask(url, "jobs.create", " ").failed(InvalidInput, "prompt: got ' '")


def test_a_key_gives_the_same_job_on_a_real_server(ask: Ask, real: tuple[Engine, str]) -> None:
    _, url = real
    key = f"key-{ask.__name__}"
    first, again = (
        ask(url, "jobs.create", "a hen", idempotency_key=key, **SMALL).value for _ in range(2)
    )
    assert first.id == again.id
    other = ask(url, "jobs.create", "an owl", idempotency_key=key, **SMALL)
    other.failed(InvalidInput, f"idempotency_key: got '{key}'; allowed: another one")


def test_a_job_is_cancelled_on_a_real_server(ask: Ask, real: tuple[Engine, str]) -> None:
    engine, url = real
    made = ask(url, "jobs.create", "a whale", **LONG).value
    ask(url, "jobs.result", made).failed(Unavailable, "is ")
    assert ask(url, "jobs.cancel", made).value.status == "cancelled"
    assert ask(url, "jobs.cancel", made).value.status == "cancelled"
    ask(url, "jobs.wait", made).failed(Cancelled)
    wait_until(lambda: engine.num_waiting == 0)


def test_leaving_events_leaves_the_job(real: tuple[Engine, str]) -> None:
    engine, url = real
    with Client(url) as client:
        made = client.jobs.create("a whale", previews=5, **LONG)
        with client.jobs.events(made) as events:
            assert isinstance(next(events), Job)
        assert client.jobs.get(made).status in ("queued", "running")
        client.jobs.cancel(made)

    async def leave() -> None:
        async with AsyncClient(url) as client:
            made = await client.jobs.create("a whale", **LONG)
            async with client.jobs.events(made) as events:
                assert isinstance(await anext(events), Job)
            waiting = asyncio.create_task(client.jobs.wait(made))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert not (await client.jobs.get(made)).has_ended
            await client.jobs.cancel(made)

    asyncio.run(leave())
    wait_until(lambda: engine.num_waiting == 0)


def test_a_full_server_makes_no_job(ask: Ask, pipeline: Pipeline) -> None:
    with (
        Engine(pipeline, Engine.Config(max_waiting=1)) as engine,
        live_server(engine, Metrics()) as (host, port),
        Client(f"http://{host}:{port}") as client,
    ):
        made = client.jobs.create("a whale", **LONG)
        asked = ask(f"http://{host}:{port}", "jobs.create", "a fox", client={"retries": 0})
        error = asked.failed(Overloaded)
        assert isinstance(error, Overloaded)
        assert error.retry is not None
        assert error.retry >= 1
        client.jobs.cancel(made)
