"""What all requests of a server share."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from fastapi import Request
from starlette.types import Receive

from musiva.core.errors import MusivaError
from musiva.core.types import Request as EngineRequest
from musiva.engine import Front, Standing
from musiva.server.bodies import PictureBody, parse_body
from musiva.server.config import AppConfig
from musiva.server.limits import Places
from musiva.server.pictures import FileStore
from musiva.server.reading import check_media_type, read_body
from musiva.server.submitted import Submitted
from musiva.telemetry import Metrics

__all__ = ["Questions", "Shared"]

B = TypeVar("B", bound=PictureBody)
T = TypeVar("T")


class Shared:
    """The event loop only waits; a pool checks prompts and encodes pictures, and another one asks
    the engine. clock: seconds since 1970.
    """

    def __init__(
        self, engine: Front, metrics: Metrics, config: AppConfig, clock: Callable[[], float]
    ) -> None:
        self.engine = engine
        self.metrics = metrics
        self.config = config
        self.clock = clock
        self.access = config.access
        self.files = FileStore(config.max_file_bytes)
        self.places = Places(config.max_waiting, refused=metrics.refused)
        # Of those that only ask what would be, and so take nobody's place.
        self.asking = Places(config.max_waiting)
        self.pool = ThreadPoolExecutor(config.threads, thread_name_prefix="musiva-pictures")
        self.questions = Questions(engine, config.threads)
        self.stopping = asyncio.Event()

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.questions.close()

    def in_pool(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)

    def holder(self, http: Request) -> str | None:
        """The tenant whose key a request came with, if keys say who asks."""
        found = getattr(http.state, "holder", None)
        return found if self.access.names_tenants else None

    async def read(self, http: Request, kind: type[B]) -> tuple[B, str]:
        """The body of a request, and its tenant. Raises ApiError, InvalidInput, and
        ClientDisconnect.
        """
        content = await read_body(http, self.config)
        check_media_type(http)
        body = parse_body(kind, content, self.engine.pipeline.defaults.max_images)
        return body, self.access.tenant(body.tenant, self.holder(http))

    @contextmanager
    def submitted(
        self, request: EngineRequest, receive: Receive, kinds: Collection[str]
    ) -> Iterator[Submitted]:
        """A place, and the request in the engine. Raises ApiError (429) or Unavailable."""
        with (
            self.places.take(),
            Submitted(
                self.engine, request, receive, kinds=kinds, stopping=self.stopping
            ) as submitted,
        ):
            yield submitted


class Questions:
    """Asks an engine what it answers between two steps, in threads of their own, so that nobody
    else waits for the step. Thread-safe.
    """

    def __init__(self, engine: Front, threads: int) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="musiva-questions")
        self._lock = threading.Lock()
        self._asked: concurrent.futures.Future[Standing] | None = None
        self._latest: Standing | None = None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, question: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, question, *arguments)

    async def standing(self) -> Standing:
        """How it stands. Raises Unavailable."""
        return await asyncio.shield(asyncio.wrap_future(self._standing()))

    def latest(self, seconds: float) -> Standing | None:
        """The same for a thread that waits so long at most, and else takes what was told last; None
        if nothing was, or the engine is closed.
        """
        try:
            return self._standing().result(seconds)
        except TimeoutError:
            return self._latest
        except (MusivaError, RuntimeError, concurrent.futures.CancelledError):
            return None

    def _standing(self) -> concurrent.futures.Future[Standing]:
        """One question at a time, however many want to know."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = self._pool.submit(self._engine.standing)
                self._asked.add_done_callback(self._told)
            return self._asked

    def _told(self, answer: concurrent.futures.Future[Standing]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._latest = answer.result()
