"""A server with workers: what it answers, and what becomes of its requests without one of them."""

from __future__ import annotations

import base64
import io
import platform
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from musiva.engine import Engine, Fleet, Pipeline
from musiva.server import create_app
from musiva.telemetry import Metrics
from tests.engine.fleets import fleet_of, kill
from tests.server.live import wait_until

URL = "/v1/images/generations"
BODY = {"prompt": "a fox", "size": "64x48", "steps": 60, "seed": 3, "n": 2}


@pytest.fixture
def fleet(pipeline: Pipeline) -> Iterator[Fleet]:
    with fleet_of(pipeline, 2, losses=100, attempts=100) as fleet:
        yield fleet


@pytest.fixture
def client(fleet: Fleet) -> Iterator[TestClient]:
    with TestClient(create_app(fleet, metrics=Metrics())) as client:
        yield client


def pictures_of(answer: dict) -> list[np.ndarray]:
    found = [io.BytesIO(base64.b64decode(one["b64_json"])) for one in answer["data"]]
    return [np.asarray(Image.open(one)) for one in found]


def test_pictures_are_the_same_with_a_worker_lost_on_the_way(
    client: TestClient, fleet: Fleet, pipeline: Pipeline
) -> None:
    with Engine(pipeline) as engine:
        expected = engine.generate("a fox", size=(64, 48), steps=60, seed=3, num_images=2)
    found: list[dict] = []
    asked = threading.Thread(target=lambda: found.append(client.post(URL, json=BODY).json()))
    asked.start()
    wait_until(lambda: any(ticket.kept for ticket in list(fleet._tickets.values())))
    kill(fleet, next(iter(fleet._tickets)))
    asked.join(60)
    for ours, theirs in zip(pictures_of(found[0]), expected, strict=True):
        assert np.array_equal(ours, np.asarray(theirs))
    wait_until(lambda: len(fleet._roster.ready) == 2)
    lives = [one["life"] for one in client.get("/v1/cluster").json()["workers"]]
    assert sorted(lives) == [1, 2]


def test_what_operators_see(client: TestClient, fleet: Fleet) -> None:
    wait_until(lambda: len(fleet._roster.ready) == 2)
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/v1/standing").json()["running"] == 0
    assert 'musiva_worker_ready{worker="1"} 1.0' in client.get("/metrics").text
    shown = client.get("/v1/cluster").json()["workers"][0]
    first = shown["life"]
    assert shown["host"] == platform.node()
    (link,) = shown["links"]
    assert (link["kind"], link["other"], link["latency"]) == ("server", platform.node(), None)
    assert link["transfers"] > 0
    assert f'musiva_link_transfers_total{{kind="server",other="{platform.node()}"' in (
        client.get("/metrics").text
    )
    told = client.post("/v1/cluster/0/drain").json()["workers"]
    assert told[0]["phase"] in ("draining", "gone")
    wait_until(lambda: client.get("/v1/cluster").json()["workers"][0]["life"] == first + 1)
    wait_until(lambda: len(fleet._roster.ready) == 2)
    error = client.post("/v1/cluster/7/drain").json()["error"]
    assert "worker: got 7; allowed: 0 to 1" in error["message"]
    for number in ("-1", "9" * 5000):
        assert client.post(f"/v1/cluster/{number}/drain").status_code == 400
    assert client.post(URL, json={**BODY, "steps": 2}).status_code == 200


def test_estimates_and_jobs_work_as_ever(client: TestClient) -> None:
    told = client.post("/v1/estimates", json={"prompt": "a fox", "steps": 4}).json()
    assert told["estimates"][0]["quality"] == 100
    job = client.post("/v1/jobs", json={"prompt": "a fox", "steps": 4}).json()["id"]
    wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["status"] == "succeeded")
