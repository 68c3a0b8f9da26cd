"""The same client for asyncio."""

from __future__ import annotations

import os
from typing import BinaryIO, Unpack

import httpx

from musiva.client.calls import Calls
from musiva.client.jobs import AsyncJobs
from musiva.client.jobs_told import Estimates, Standing, Worker
from musiva.client.options import Options, picture_call
from musiva.client.pictures import Event, Picture
from musiva.client.retry import Timeout
from musiva.client.wire import AsyncStream, AsyncWire

__all__ = ["AsyncClient"]


class AsyncClient:
    """`Client` with methods to await, for asyncio; what each does and raises is told there.

        async with AsyncClient() as client:
            async with client.stream("a fox", previews=4) as events:
                async for event in events: ...

    Cancelling the task that waits cancels the request on the server.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8400",
        *,
        api_key: str | None = None,
        timeout: Timeout | float | None = None,
        retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._calls = Calls(base_url, api_key, timeout, retries)
        self._wire = AsyncWire(self._calls, transport)
        self.jobs = AsyncJobs(self._calls, self._wire)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give back all connections. May be repeated."""
        await self._wire.aclose()

    async def generate(
        self, prompt: str, *, timeout: Timeout | float | None = None, **options: Unpack[Options]
    ) -> list[Picture]:
        return await self._wire.one(self._calls.generate(prompt, options, timeout))

    async def like(
        self,
        file: str | os.PathLike[str] | bytes | BinaryIO,
        *,
        prompt: str | None = None,
        timeout: Timeout | float | None = None,
        **overrides: Unpack[Options],
    ) -> list[Picture]:
        wanted, options = picture_call(file, prompt, overrides)
        return await self.generate(wanted, timeout=timeout, **options)

    def stream(
        self,
        prompt: str,
        *,
        previews: int = 0,
        preview_format: str | None = None,
        progress: bool = True,
        timeout: Timeout | float | None = None,
        **options: Unpack[Options],
    ) -> AsyncStream[Event]:
        call = self._calls.stream(prompt, options, previews, preview_format, progress, timeout)
        return AsyncStream(self._wire.run(call))

    async def estimates(self, prompt: str, **options: Unpack[Options]) -> Estimates:
        return await self._wire.one(self._calls.estimates(prompt, options))

    async def standing(self) -> Standing:
        return await self._wire.one(self._calls.standing())

    async def workers(self) -> tuple[Worker, ...]:
        return await self._wire.one(self._calls.workers())

    async def drain(self, worker: int) -> tuple[Worker, ...]:
        return await self._wire.one(self._calls.drain(worker))

    async def models(self) -> list[dict[str, object]]:
        return await self._wire.one(self._calls.models())

    async def health(self) -> dict[str, object]:
        return await self._wire.one(self._calls.health())

    async def metrics(self) -> str:
        return await self._wire.one(self._calls.metrics())
