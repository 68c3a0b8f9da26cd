"""Ten thousand jobs asked for at once, where 64 may wait."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections import Counter
from typing import Any

from musiva.engine import Engine, Pipeline, Scheduler
from musiva.server import AppConfig, create_app
from musiva.telemetry import Metrics
from tests.server.live import wait_until

JOBS = "/v1/jobs"
MOST, ASKED, AT_A_TIME = 64, 10_000, 500
BODY = json.dumps({"prompt": "a fox", "steps": 1000, "size": "16x16"}).encode()


async def ask(app: Any, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """Status and JSON, without a client's own work, which would be most of it."""
    sent: list[Any] = []
    content = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        return content.pop() if content else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"test"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": headers, "scheme": "http", "root_path": ""}
    await app(scope, receive, send)
    start, *rest = sent
    return start["status"], json.loads(b"".join(message["body"] for message in rest))


def test_a_burst_is_refused_quickly_and_leaves_nothing(pipeline: Pipeline) -> None:
    async def burst(app: Any) -> tuple[Counter[int], float, int]:
        statuses: Counter[int] = Counter()
        start = time.monotonic()
        for _ in range(ASKED // AT_A_TIME):
            asked = (ask(app, "POST", JOBS, BODY) for _ in range(AT_A_TIME))
            for status, told in await asyncio.gather(*asked):
                statuses[status] += 1
                assert status == 202 or told["error"]["code"] == "rate_limit_exceeded"
        seconds = time.monotonic() - start
        gc.collect()
        # Of each job that waits, and none of those that were refused.
        tasks = len(asyncio.all_tasks())
        _, page = await ask(app, "GET", JOBS)
        assert page["has_more"]
        for job in page["data"]:
            assert (await ask(app, "POST", f"{JOBS}/{job['id']}/cancel"))[0] == 200
        await asyncio.sleep(0.05)
        status, _ = await ask(app, "POST", JOBS, BODY)
        assert status == 202
        return statuses, seconds, tasks

    # Nothing runs beside the first, so that the machine's time is the server's.
    config = Engine.Config(scheduler=Scheduler.Config(max_rows=1))
    with Engine(pipeline, config) as engine:
        app = create_app(engine, metrics=Metrics(), config=AppConfig(max_waiting=MOST))
        statuses, seconds, tasks = asyncio.run(burst(app))
        assert statuses == {202: MOST, 429: ASKED - MOST}
        # A task for each job and its look at the server's end, and this one.
        assert tasks <= 2 * MOST + 1
        assert seconds < 30
        wait_until(lambda: engine.num_waiting == 0)
