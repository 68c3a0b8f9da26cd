"""`/v1/videos`: jobs in the words of OpenAI's videos."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from musiva.core.errors import InvalidInput
from musiva.engine import Pipeline
from musiva.server.answers import ErrorDetail
from musiva.server.bodies import VideoBody
from musiva.server.job_answers import Status, Video, VideoDeleted, VideoStatus
from musiva.server.job_record import JobRecord
from musiva.server.jobs_api import UNCACHED, JobsApi
from musiva.server.reading import skip_body
from musiva.server.shared import Shared

__all__ = ["VideosApi"]

# Cancelled ones have failed, to OpenAI.
STATUSES: Mapping[Status, VideoStatus] = {
    "queued": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",
}


class VideosApi:
    """A thin layer over jobs, which are the same ones."""

    def __init__(self, shared: Shared, jobs: JobsApi) -> None:
        self._shared, self._jobs = shared, jobs

    async def create(self, http: Request) -> Response:
        """Raises ApiError, InvalidInput, and what the engine refuses."""
        created, started = self._shared.clock(), time.perf_counter()
        body, tenant = await self._shared.read(http, VideoBody)
        for field, value, only in (
            ("n", body.n, 1),
            ("response_format", body.response_format, "b64_json"),
        ):
            if value not in (None, only):
                raise InvalidInput(field, value, f"{only}; /v1/videos/ID/content has the file")
        if body.seconds is not None:
            frames = _frames(self._shared.engine.pipeline, body)
            body = body.model_copy(update={"frames": frames, "seconds": None})
        record, _ = await self._jobs.made(http, body, tenant, created, started)
        return JSONResponse(self._told(record).model_dump())

    async def get(self, http: Request, video: str) -> Response:
        """Raises ApiError (404)."""
        record = self._jobs.found(http, video)
        return JSONResponse(self._told(record).model_dump(), headers=UNCACHED)

    async def content(self, http: Request, video: str) -> Response:
        """The file. Raises ApiError (409) if there is none yet, or never will be."""
        answer = json.loads(self._jobs.succeeded(http, video).result)
        content = base64.b64decode(answer["data"][0]["b64_json"])
        return Response(content, media_type=f"image/{answer['output_format']}", headers=UNCACHED)

    async def delete(self, http: Request, video: str) -> Response:
        """Ends it, if it has not ended. Raises ApiError (404)."""
        await skip_body(http, self._shared.config.body_seconds)
        record = self._jobs.found(http, video)
        if not record.has_ended:
            record.cancel(self._shared.clock())
            self._jobs.store.end(record)
        self._jobs.store.remove(record)
        return JSONResponse(VideoDeleted(id=record.id).model_dump())

    def _told(self, record: JobRecord) -> Video:
        job, kept = record.told(), self._shared.config.job_seconds
        error = job.error
        if job.status == "cancelled":
            said = f"job {job.id} was cancelled"
            error = ErrorDetail(message=said, type="server_error", code="job_cancelled")
        done = job.progress.evaluation / job.progress.num_evaluations
        return Video(
            id=job.id,
            model=job.model,
            status=STATUSES[job.status],
            progress=100 if job.status == "succeeded" else int(99 * done),
            created_at=int(job.created),
            completed_at=int(job.ended) if job.ended and job.status == "succeeded" else None,
            expires_at=None if job.ended is None else int(job.ended + kept),
            size=record.size,
            seconds=f"{record.frames / record.fps:g}",
            frames=record.frames,
            fps=record.fps,
            error=error,
        )


def _frames(pipeline: Pipeline, body: VideoBody) -> int:
    """Of so many seconds, the frame at their end among them or not. Raises InvalidInput."""
    if body.frames is not None:
        raise InvalidInput("seconds", body.seconds, "none beside frames")
    fps = pipeline.defaults.fps if body.fps is None else body.fps
    count = float(body.seconds or 0) * fps
    counts = range(1, 2) if pipeline.clips is None else pipeline.clips.counts
    for frames in (round(count) + 1, round(count)):
        if frames in counts:
            return frames
    allowed = f"at {fps:g} frames a second, those of {counts[0]}"
    if len(counts) > 1:
        allowed += f" to {counts[-1]} frames in steps of {counts.step}"
    raise InvalidInput("seconds", body.seconds, allowed)
