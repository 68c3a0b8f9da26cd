"""What is known of one job, and who waits for news of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from musiva.core.types import Event, Request
from musiva.server.answers import ErrorDetail
from musiva.server.job_answers import ENDED, Job, JobPreview, JobProgressed, Status

__all__ = ["JobRecord", "News"]


@dataclass(slots=True)
class News:
    """The latest of its kind. version: of the record when it came. shown: of a preview, the event
    that subscribers get, once one has asked for it.
    """

    version: int
    event: Event
    shown: asyncio.Future[JobPreview] | None = None


class JobRecord:
    """For one event loop, and once its request is admitted. Subscribers read `news` and await
    `changed`, so that they cost the job nothing, however many there are and however slow.

    created, now: seconds since 1970. predicted: seconds until it should be done. key: by which it
    can be asked for again, of its tenant. result: the answer, once it is there. deadline: seconds
    since 1970. version: counts what has changed.
    """

    def __init__(
        self,
        request: Request,
        *,
        model: str,
        num_evaluations: int,
        created: float,
        now: float,
        predicted: float,
        task: asyncio.Task[None],
        key: str | None = None,
    ) -> None:
        self.id, self.tenant, self.key = request.id, request.tenant, key
        self.size = "{}x{}".format(*request.size)
        self.frames, self.fps = request.frames, request.fps
        self.status: Status = "queued"
        self.created, self.started, self.ended = created, None, None
        self.deadline = None if request.deadline is None else now + request.deadline
        self.deadline_met: bool | None = None
        self.error: ErrorDetail | None = None
        self.result = b""
        self.news: dict[tuple[str, int], News] = {}
        self.version = 0
        self.changed = asyncio.get_running_loop().create_future()
        self._model = model
        self._total, self._count = num_evaluations, request.num_images
        self._predicted = predicted
        self._evaluations = [0] * request.num_images
        self._num_done = 0
        self._task = task

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def num_bytes(self) -> int:
        """That it is worth counting for."""
        return len(self.result)

    def told(self) -> Job:
        """As it is now."""
        return Job(
            id=self.id,
            status=self.status,
            created=round(self.created, 3),
            started=None if self.started is None else round(self.started, 3),
            ended=None if self.ended is None else round(self.ended, 3),
            model=self._model,
            tenant=self.tenant,
            progress=JobProgressed(
                evaluation=sum(self._evaluations),
                num_evaluations=self._total * self._count,
                pictures=self._num_done,
                num_pictures=self._count,
            ),
            predicted_seconds=round(self._predicted, 4),
            deadline=None if self.deadline is None else round(self.deadline, 3),
            deadline_met=self.deadline_met,
            error=self.error,
        )

    def hear(self, event: Event, now: float) -> None:
        """Enter "progress", "preview" or "picture"."""
        if self.status == "queued":
            self.status, self.started = "running", now
        self._evaluations[event.index] = event.evaluation
        if event.kind == "picture":
            self._num_done += 1
            if event.report is not None and event.report.deadline_met is False:
                self.deadline_met = False
            self.news.pop(("preview", event.index), None)
            # Without its pixels, which are in the result.
            event = replace(event, kind="progress", picture=None, actions=event.actions[-1:])
        self._change()
        self.news[event.kind, event.index] = News(self.version, event)

    def succeed(self, result: bytes, now: float) -> None:
        self.result = result
        if self.deadline is not None and self.deadline_met is None:
            self.deadline_met = True
        self._end("succeeded", now)

    def fail(self, error: ErrorDetail, now: float) -> None:
        self.error = error
        self._end("failed", now)

    def cancel(self, now: float) -> None:
        """Also ends its task, which leaves the engine."""
        self._end("cancelled", now)
        self._task.cancel()

    def _end(self, status: Status, now: float) -> None:
        self.status, self.ended = status, now
        self.news.clear()
        self._change()

    def _change(self) -> None:
        self.version += 1
        before, self.changed = self.changed, asyncio.get_running_loop().create_future()
        before.set_result(None)
