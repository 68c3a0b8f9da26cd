"""One engine and one app for the tests that only ask them something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from musiva.engine import Engine, Pipeline, load_pipeline
from musiva.server import create_app
from musiva.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Served:
    engine: Engine
    metrics: Metrics
    client: TestClient


@pytest.fixture(scope="session")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def engine(pipeline: Pipeline) -> Iterator[Engine]:
    with Engine(pipeline) as engine:
        yield engine


@pytest.fixture(scope="module")
def served(pipeline: Pipeline) -> Iterator[Served]:
    metrics = Metrics()
    with (
        Engine(pipeline, observe=metrics.observe) as engine,
        TestClient(create_app(engine, metrics=metrics)) as client,
    ):
        yield Served(engine, metrics, client)


@pytest.fixture
def client(served: Served) -> TestClient:
    return served.client
