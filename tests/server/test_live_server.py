"""Over real sockets: the official client, many at a time, and clients that go away."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

import musiva
from musiva.core.types import Kind, StepPlan, StepResult
from musiva.engine import Engine, Pipeline
from musiva.telemetry import Metrics
from tests.server.live import connect, live_server, raw_request, wait_until

URL = "/v1/images/generations"
LONG_STEPS = 1000


class Counting(Metrics):
    """Metrics that also count the denoise steps."""

    def __init__(self) -> None:
        super().__init__()
        self.denoise_steps = 0

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        super().observe(plan, result)
        self.denoise_steps += plan.kind is Kind.DENOISE and bool(plan.items)


class Live:
    def __init__(self, engine: Engine, metrics: Counting, address: tuple[str, int]) -> None:
        self.engine = engine
        self.metrics = metrics
        self.address = address
        self.url = f"http://{address[0]}:{address[1]}"


@pytest.fixture(scope="module")
def live(pipeline: Pipeline) -> Iterator[Live]:
    metrics = Counting()
    with (
        Engine(pipeline, observe=metrics.observe) as engine,
        live_server(engine, metrics) as address,
    ):
        yield Live(engine, metrics, address)


def test_many_clients_of_mixed_sizes_share_packs(live: Live) -> None:
    """Every answer equals `generate` alone, and steps are far fewer than one request at a time."""
    sizes = [(16, 16), (32, 32), (48, 16), (16, 64), (40, 40)]
    jobs = [(i, sizes[i % len(sizes)], 3 + i % 4) for i in range(20)]
    before = live.metrics.denoise_steps

    def ask(job: tuple[int, tuple[int, int], int]) -> Image.Image:
        seed, (width, height), steps = job
        body = {
            "prompt": f"a fox {seed}",
            "seed": seed,
            "steps": steps,
            "size": f"{width}x{height}",
        }
        response = httpx.post(live.url + URL, json=body, timeout=30)
        response.raise_for_status()
        content = base64.b64decode(response.json()["data"][0]["b64_json"])
        return Image.open(io.BytesIO(content))

    with ThreadPoolExecutor(10) as pool:
        pictures = list(pool.map(ask, jobs))
    shared = live.metrics.denoise_steps - before
    assert shared < sum(steps for _, _, steps in jobs)
    for (seed, size, steps), got in list(zip(jobs, pictures, strict=True))[::4]:
        alone = live.engine.generate(f"a fox {seed}", seed=seed, steps=steps, size=size)[0]
        np.testing.assert_array_equal(np.asarray(got), np.asarray(alone))


def test_client_that_disconnects_frees_its_work(live: Live) -> None:
    body = {"prompt": "a fox", "steps": LONG_STEPS, "n": 8, "size": "128x128"}
    cancelled = live.metrics.render().count(b"musiva_requests_cancelled_total 1.0")
    assert cancelled == 0
    before = live.metrics.denoise_steps
    client = connect(live.address)
    client.sendall(raw_request(URL, json.dumps(body).encode()))
    wait_until(lambda: live.metrics.denoise_steps > before + 1)
    assert live.engine.num_waiting == 1
    client.close()
    wait_until(lambda: live.engine.num_waiting == 0, seconds=5)
    assert live.metrics.denoise_steps - before < LONG_STEPS / 4
    executor = live.engine._loop.executor
    wait_until(lambda: executor.num_slots == 0, seconds=5)  # type: ignore[attr-defined]
    steps = live.metrics.denoise_steps
    text = httpx.get(f"{live.url}/metrics").text
    assert "musiva_requests_cancelled_total 1.0" in text
    assert f'route="{URL}",status="499"' in text
    assert httpx.post(live.url + URL, json={"prompt": "a fox", "steps": 2}).status_code == 200
    assert live.metrics.denoise_steps == steps + 2


def test_client_that_leaves_while_it_sends(live: Live) -> None:
    with connect(live.address) as client:
        client.sendall(raw_request(URL, b" " * 1000)[:-500])
    assert httpx.get(f"{live.url}/healthz").json()["waiting"] == 0


def test_body_too_large_reaches_a_client_that_still_sends(live: Live) -> None:
    response = httpx.post(live.url + URL, content=b" " * 3_000_000)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_metrics_and_health(live: Live) -> None:
    text = httpx.get(f"{live.url}/metrics").text
    for name in (
        'musiva_step_seconds_count{kind="encode"}',
        'musiva_step_seconds_count{kind="denoise"}',
        'musiva_step_seconds_count{kind="decode"}',
        "musiva_denoise_pack_rows_sum",
        "musiva_pictures_total",
        "musiva_requests_waiting 0.0",
        "musiva_http_requests_in_flight 1.0",
        f'musiva_http_requests_total{{route="{URL}",status="200"}}',
        "process_resident_memory_bytes",
    ):
        assert name in text, name
    health = httpx.get(f"{live.url}/healthz").json()
    instance = health.pop("instance")
    assert len(instance) == 32
    assert health == {
        "status": "ok",
        "model": "tiny",
        "waiting": 0,
        "running": 0,
        "version": musiva.__version__,
    }
    assert httpx.get(f"{live.url}/healthz").json()["instance"] == instance
