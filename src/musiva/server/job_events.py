"""News of a job for whoever wants them, as a stream: what it is now first, then what changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import BaseModel
from starlette.types import Receive

from musiva.core.types import Event
from musiva.server.drawing import PREVIEW_COMPRESSION, active_tiles, progressed, shown
from musiva.server.job_answers import (
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobPreview,
    JobProgress,
    JobStatus,
)
from musiva.server.job_record import JobRecord, News
from musiva.server.shared import Shared
from musiva.server.submitted import disconnected

__all__ = ["JobEvents"]

ENDS = {"succeeded": JobCompleted, "failed": JobFailed, "cancelled": JobCancelled}
# After which a stream says that it is still there.
QUIET_SECONDS = 15.0


class JobEvents:
    """Fits `EventStream`. A slow reader finds the latest of each kind and picture, and the end."""

    def __init__(self, shared: Shared, record: JobRecord) -> None:
        self._shared, self._record = shared, record

    async def __call__(self, receive: Receive) -> AsyncGenerator[BaseModel | None, None]:
        leaving = asyncio.ensure_future(disconnected(receive))
        try:
            yield None
            async with aclosing(self._told(leaving)) as told:
                async for event in told:
                    yield event
        finally:
            leaving.cancel()

    async def _told(self, leaving: asyncio.Future[None]) -> AsyncGenerator[BaseModel | None, None]:
        record, seen, status = self._record, 0, None
        while not record.has_ended:
            if record.status != status:
                status = record.status
                yield JobStatus(job=record.told())
                # Sending takes time, in which more may have changed.
                continue
            changed, version = record.changed, record.version
            for place, news in sorted(record.news.items(), key=lambda item: item[1].version):
                # Here too, and then a newer one has come.
                if news.version > seen and record.news.get(place) is news:
                    yield await self._event(news)
            seen = version
            done, _ = await asyncio.wait(
                {leaving, changed}, timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if leaving in done:
                return
            if not done:
                yield None
        yield ENDS[record.status](job=record.told())

    async def _event(self, news: News) -> JobProgress | JobPreview:
        """A preview is encoded when the first subscriber comes to it, once for all."""
        if news.event.kind == "progress":
            return JobProgress(**progressed(news.event))
        if news.shown is None:
            news.shown = self._shared.in_pool(_preview, news.event, self._record.size)
        return await asyncio.shield(news.shown)


def _preview(event: Event, size: str) -> JobPreview:
    return JobPreview(
        b64_json=shown(event, "jpeg", PREVIEW_COMPRESSION),
        output_format="jpeg",
        size=size,
        index=event.index,
        evaluation=event.evaluation,
        num_evaluations=event.num_evaluations,
        computed=event.actions[-1].compute,
        tiles=[*event.tiles] if event.tiles else None,
        active_tiles=active_tiles(event),
    )
