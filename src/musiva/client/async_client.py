"""The same client for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import BinaryIO, TypeVar, Unpack

import httpx

from musiva.client.calls import LIMITS, Calls
from musiva.client.flow import Call, Give, Opened, Read, Send, Sleep, flow
from musiva.client.options import Options, picture_call
from musiva.client.pictures import Event, Picture
from musiva.client.retry import Timeout

__all__ = ["AsyncClient", "AsyncStream"]

T = TypeVar("T")


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
        self._http = httpx.AsyncClient(
            limits=LIMITS, transport=transport, mounts=self._calls.mounts
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give back all connections. May be repeated."""
        await self._http.aclose()

    async def generate(
        self, prompt: str, *, timeout: Timeout | float | None = None, **options: Unpack[Options]
    ) -> list[Picture]:
        return await self._one(self._calls.generate(prompt, options, timeout))

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
    ) -> AsyncStream:
        call = self._calls.stream(prompt, options, previews, preview_format, progress, timeout)
        return AsyncStream(self._run(call))

    async def models(self) -> list[dict[str, object]]:
        return await self._one(self._calls.models())

    async def health(self) -> dict[str, object]:
        return await self._one(self._calls.health())

    async def metrics(self) -> str:
        return await self._one(self._calls.metrics())

    async def _one(self, call: Call[T]) -> T:
        async with aclosing(self._run(call)) as values:
            (value,) = [value async for value in values]
        return value

    async def _run(self, call: Call[T]) -> AsyncGenerator[T, None]:
        steps = flow(call)
        response: httpx.Response | None = None
        chunks: AsyncIterator[bytes] | None = None
        try:
            step = next(steps)
            while True:
                result = None
                try:
                    match step:
                        case Send():
                            response = await self._http.send(call.request(), stream=True)
                            chunks = response.aiter_bytes()
                            result = Opened(response.status_code, response.headers)
                        case Read():
                            assert chunks is not None
                            result = await anext(chunks, None)
                        case Sleep(seconds):
                            if response is not None:
                                await response.aclose()
                            await asyncio.sleep(seconds)
                        case Give(value):
                            yield value
                except httpx.RequestError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration:
            return
        finally:
            if response is not None:
                await response.aclose()


class AsyncStream(AsyncIterator[Event]):
    """`Stream` for asyncio: closing it, also by leaving it as a context, cancels the request."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._events.aclose()
