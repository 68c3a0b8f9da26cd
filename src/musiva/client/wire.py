"""Calls over httpx: what `flow` asks for is done here, blocking or awaiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing
from typing import TypeVar

import httpx

from musiva.client.calls import LIMITS, Calls
from musiva.client.flow import Call, Give, Opened, Read, Send, Sleep, flow

__all__ = ["AsyncStream", "AsyncWire", "Stream", "Wire"]

T = TypeVar("T")


class Wire:
    """Thread-safe. calls: what the client was made with."""

    def __init__(self, calls: Calls, transport: httpx.BaseTransport | None) -> None:
        self._http = httpx.Client(limits=LIMITS, transport=transport, mounts=calls.mounts)

    def close(self) -> None:
        self._http.close()

    def one(self, call: Call[T]) -> T:
        """The whole result of a call that has one."""
        (value,) = self.run(call)
        return value

    def run(self, call: Call[T]) -> Generator[T, None, None]:
        steps = flow(call)
        response: httpx.Response | None = None
        chunks: Iterator[bytes] = iter(())
        try:
            step = next(steps)
            while True:
                result = None
                try:
                    match step:
                        case Send():
                            response = self._http.send(call.request(), stream=True)
                            chunks = response.iter_bytes()
                            result = Opened(response.status_code, response.headers)
                        case Read():
                            result = next(chunks, None)
                        case Sleep(seconds):
                            if response is not None:
                                response.close()
                            time.sleep(seconds)
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
                response.close()


class AsyncWire:
    """`Wire` for asyncio."""

    def __init__(self, calls: Calls, transport: httpx.AsyncBaseTransport | None) -> None:
        self._http = httpx.AsyncClient(limits=LIMITS, transport=transport, mounts=calls.mounts)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def one(self, call: Call[T]) -> T:
        async with aclosing(self.run(call)) as values:
            (value,) = [value async for value in values]
        return value

    async def run(self, call: Call[T]) -> AsyncGenerator[T, None]:
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


class Stream(Iterator[T]):
    """Iterates over events. Closing it, also by leaving it as a context, ends its request: one that
    makes pictures is cancelled on the server.
    """

    def __init__(self, events: Generator[T, None, None]) -> None:
        self._events = events

    def __next__(self) -> T:
        return next(self._events)

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._events.close()


class AsyncStream(AsyncIterator[T]):
    """`Stream` for asyncio."""

    def __init__(self, events: AsyncGenerator[T, None]) -> None:
        self._events = events

    async def __anext__(self) -> T:
        return await anext(self._events)

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._events.aclose()
