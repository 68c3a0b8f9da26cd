"""Both clients behind one call, so that every test holds for both, and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

import pytest

from musiva.client import AsyncClient, AsyncStream, Client, Stream, calls
from musiva.client.retry import Retry
from musiva.core.errors import MusivaError
from musiva.engine import Engine, Pipeline, load_pipeline
from musiva.telemetry import Metrics
from tests.server.live import live_server


@dataclass(frozen=True, slots=True)
class Asked:
    """value: the result, for a stream the list of events before it ended or failed."""

    value: object
    error: MusivaError | None = None

    def failed(self, kind: type[MusivaError], *told: str) -> MusivaError:
        assert type(self.error) is kind, self.error
        for text in told:
            assert text in str(self.error)
        return self.error


Ask = Callable[..., Asked]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """ask(url, "generate", "a fox", seed=1, client={"retries": 0}) makes a client, one call, and
    closes it; "jobs.get" is one of its jobs. Waits between attempts are short.
    """
    monkeypatch.setattr(calls, "Retry", partial(Retry, base=0.002))
    if request.param == "sync":
        return _ask
    return lambda *arguments, **options: asyncio.run(_ask_async(*arguments, **options))


def _ask(
    url: str, name: str, *arguments: object, client: dict | None = None, **options: object
) -> Asked:
    got: list[object] = []
    with Client(url, **client or {}) as one:
        try:
            result = attrgetter(name)(one)(*arguments, **options)
            if not isinstance(result, Stream):
                return Asked(result)
            for event in result:
                got.append(event)
        except MusivaError as error:
            return Asked(got, error)
    return Asked(got)


async def _ask_async(
    url: str, name: str, *arguments: object, client: dict | None = None, **options: object
) -> Asked:
    got: list[object] = []
    async with AsyncClient(url, **client or {}) as one:
        try:
            result = attrgetter(name)(one)(*arguments, **options)
            if not isinstance(result, AsyncStream):
                return Asked(await result)
            async for event in result:
                got.append(event)
        except MusivaError as error:
            return Asked(got, error)
    return Asked(got)


@dataclass(frozen=True, slots=True)
class Live:
    """A server, and the engine behind it."""

    engine: Engine
    url: str


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def live(pipeline: Pipeline) -> Iterator[Live]:
    metrics = Metrics()
    with (
        Engine(pipeline, observe=metrics.observe) as engine,
        live_server(engine, metrics) as (host, port),
    ):
        yield Live(engine, f"http://{host}:{port}")
