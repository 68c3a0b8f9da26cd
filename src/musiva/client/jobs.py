"""`client.jobs`: requests that outlive their connection."""

from __future__ import annotations

import asyncio
import time
from typing import Unpack

from musiva.client.calls import Calls
from musiva.client.job_calls import JobCalls
from musiva.client.jobs_told import Job, JobEvent, JobPage
from musiva.client.options import Options
from musiva.client.pictures import Picture
from musiva.client.retry import Timeout
from musiva.client.wire import AsyncStream, AsyncWire, Stream, Wire
from musiva.core.errors import Unavailable

__all__ = ["AsyncJobs", "Jobs"]

# `list` is a method here.
Pictures = list[Picture]


class Jobs:
    """A job is named by its id, or by a `Job`. Raises what the client's other calls raise, and
    InvalidInput for "job" where the server keeps none of that id.
    """

    def __init__(self, calls: Calls, wire: Wire) -> None:
        self._calls, self._wire = JobCalls(calls), wire

    def create(
        self,
        prompt: str,
        *,
        previews: int = 0,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """A job, once the server has admitted it. previews: that its events may show of each
        picture, 0 to 100. idempotency_key: with that of an earlier call, and the same of all else,
        that call's job; None is a new one, which holds for all attempts of this call.
        """
        call = self._calls.create(prompt, options, previews, idempotency_key, timeout)
        return self._wire.one(call)

    def get(self, job: str | Job) -> Job:
        return self._wire.one(self._calls.get(job))

    def list(
        self,
        *,
        limit: int | None = None,
        after: str | Job | None = None,
        status: str | None = None,
    ) -> JobPage:
        """The newest first, 20 or `limit` of them, 1 to 100, from the one behind `after` on."""
        return self._wire.one(self._calls.page(limit, after, status))

    def cancel(self, job: str | Job) -> Job:
        """The same again for one that was cancelled. Raises InvalidInput for one that ended
        otherwise.
        """
        return self._wire.one(self._calls.cancel(job))

    def result(self, job: str | Job, *, timeout: Timeout | float | None = None) -> Pictures:
        """Its pictures. Raises Unavailable while there are none, Cancelled and ExecutionFailed if
        there never will be.
        """
        return self._wire.one(self._calls.result(job, timeout))

    def events(self, job: str | Job, *, timeout: Timeout | float | None = None) -> Stream[JobEvent]:
        """What it is now, and what becomes of it, up to its end. Leaving them ends nothing else."""
        return Stream(self._wire.run(self._calls.events(job, timeout)))

    def wait(self, job: str | Job, *, timeout: Timeout | float | None = None) -> Pictures:
        """Its pictures, once they are there, over connections that break. Raises what it failed
        of.
        """
        attempt = 0
        while True:
            try:
                for event in self.events(job, timeout=timeout):
                    attempt = 0
                    _raise_failure(event)
                return self.result(job, timeout=timeout)
            except Unavailable as error:
                seconds = _again(self._calls, error, attempt)
                if seconds is None:
                    raise
            time.sleep(seconds)
            attempt += 1


class AsyncJobs:
    """`Jobs` with methods to await; what each does and raises is told there."""

    def __init__(self, calls: Calls, wire: AsyncWire) -> None:
        self._calls, self._wire = JobCalls(calls), wire

    async def create(
        self,
        prompt: str,
        *,
        previews: int = 0,
        idempotency_key: str | None = None,
        timeout: Timeout | float | None = None,
        **options: Unpack[Options],
    ) -> Job:
        call = self._calls.create(prompt, options, previews, idempotency_key, timeout)
        return await self._wire.one(call)

    async def get(self, job: str | Job) -> Job:
        return await self._wire.one(self._calls.get(job))

    async def list(
        self,
        *,
        limit: int | None = None,
        after: str | Job | None = None,
        status: str | None = None,
    ) -> JobPage:
        return await self._wire.one(self._calls.page(limit, after, status))

    async def cancel(self, job: str | Job) -> Job:
        return await self._wire.one(self._calls.cancel(job))

    async def result(self, job: str | Job, *, timeout: Timeout | float | None = None) -> Pictures:
        return await self._wire.one(self._calls.result(job, timeout))

    def events(
        self, job: str | Job, *, timeout: Timeout | float | None = None
    ) -> AsyncStream[JobEvent]:
        return AsyncStream(self._wire.run(self._calls.events(job, timeout)))

    async def wait(self, job: str | Job, *, timeout: Timeout | float | None = None) -> Pictures:
        attempt = 0
        while True:
            try:
                async with self.events(job, timeout=timeout) as events:
                    async for event in events:
                        attempt = 0
                        _raise_failure(event)
                return await self.result(job, timeout=timeout)
            except Unavailable as error:
                seconds = _again(self._calls, error, attempt)
                if seconds is None:
                    raise
            await asyncio.sleep(seconds)
            attempt += 1


def _raise_failure(event: JobEvent) -> None:
    if isinstance(event, Job) and event.error is not None:
        raise event.error


def _again(calls: JobCalls, error: Unavailable, attempt: int) -> float | None:
    """Seconds after which to look again, where a connection was lost; None for what a server has
    said.
    """
    return calls.retry.wait(attempt, None) if error.answer is None else None
