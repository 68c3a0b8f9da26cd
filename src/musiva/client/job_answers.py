"""Bytes of good answers about jobs, and about how a server stands."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from musiva.client.answers import preview_of, progress_of, read_event
from musiva.client.failures import failure_of
from musiva.client.jobs_told import (
    Estimate,
    Estimates,
    Job,
    JobEvent,
    JobPage,
    Standing,
    Worker,
    WorkerLink,
)
from musiva.client.pictures import Preview
from musiva.client.reading import (
    Json,
    json_of,
    known,
    listed,
    number,
    object_of,
    truth,
    whole,
    word,
)
from musiva.client.sse import EventParser
from musiva.core.errors import MusivaError, Unavailable

__all__ = [
    "JobEventReader",
    "estimates_of",
    "job_of",
    "page_of",
    "standing_of",
    "workers_of",
]


class JobEventReader:
    """The events of one job, up to its end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._parser = EventParser()
        self._last: Job | None = None
        self._shown: Counter[int] = Counter()
        told = partial(_told, url=url)
        self._kinds: Mapping[str, Callable[[Json], JobEvent]] = {
            "job.status": told,
            "job.progress": progress_of,
            "job.preview": self._preview,
            "job.completed": told,
            "job.failed": told,
            "job.cancelled": told,
        }

    @property
    def complete(self) -> bool:
        return self._last is not None and self._last.has_ended

    @property
    def reached(self) -> str:
        if self._last is None:
            return "before its first event"
        return f"while job {self._last.id} was {self._last.status}"

    def feed(self, chunk: bytes) -> Iterator[JobEvent]:
        """Raises Unavailable for events that make no sense."""
        for raw in self._parser.feed(chunk):
            event = read_event(raw, self._kinds, self._url, {})
            if isinstance(event, Job):
                self._last = event
            if event is not None:
                yield event

    def end(self) -> Iterator[JobEvent]:
        if not self.complete:
            raise Unavailable(f"{self._url}: the stream ended {self.reached}")
        return iter(())

    def _preview(self, event: Json) -> Preview:
        index = whole(event, "index")
        self._shown[index] += 1
        return preview_of(event, self._shown[index] - 1)


def job_of(content: bytes, url: str) -> Job:
    """Raises KeyError, TypeError or ValueError, as all of these."""
    return _job(json_of(content), url)


def page_of(content: bytes, url: str) -> JobPage:
    page = json_of(content)
    jobs = tuple(_job(job, url) for job in listed(page, "data"))
    return JobPage(jobs=jobs, has_more=truth(page, "has_more"))


def standing_of(content: bytes) -> Standing:
    told = json_of(content)
    return Standing(
        waiting=whole(told, "waiting"),
        running=whole(told, "running"),
        backlog=number(told, "backlog_seconds"),
        backlog_floor=number(told, "backlog_floor_seconds"),
        goodput=number(told, "goodput"),
        attainment=known(number, told, "attainment"),
        refused=whole(told, "refused"),
        quality=known(number, told, "quality"),
    )


def estimates_of(content: bytes) -> Estimates:
    told = json_of(content)
    return Estimates(
        deadline=known(number, told, "deadline"),
        estimates=tuple(
            Estimate(
                quality=whole(one, "quality"),
                finish=number(one, "finish_seconds"),
                work=number(one, "work_seconds"),
                refusal=known(word, one, "refusal"),
            )
            for one in listed(told, "estimates")
        ),
    )


def workers_of(content: bytes) -> tuple[Worker, ...]:
    return tuple(
        Worker(
            number=whole(one, "worker"),
            phase=word(one, "phase"),
            pid=known(whole, one, "pid"),
            life=whole(one, "life"),
            requests=whole(one, "requests"),
            waiting=whole(one, "waiting"),
            work=number(one, "work_seconds"),
            steps=whole(one, "steps"),
            store_bytes=whole(one, "store_bytes"),
            found=whole(one, "found"),
            not_found=whole(one, "not_found"),
            host=known(word, one, "host"),
            links=tuple(map(_link, listed(one, "links"))),
        )
        for one in listed(json_of(content), "workers")
    )


def _link(told: Json) -> WorkerLink:
    return WorkerLink(
        kind=word(told, "kind"),
        other=word(told, "other"),
        sent_bytes=whole(told, "sent_bytes"),
        received_bytes=whole(told, "received_bytes"),
        transfers=whole(told, "transfers"),
        seconds=number(told, "seconds"),
        latency=known(number, told, "latency"),
        bytes_per_second=known(number, told, "bytes_per_second"),
    )


def _told(event: Json, url: str) -> Job:
    return _job(object_of(event["job"]), url)


def _job(told: Json, url: str) -> Job:
    progress = object_of(told["progress"])
    return Job(
        id=word(told, "id"),
        status=word(told, "status"),
        created=number(told, "created"),
        started=known(number, told, "started"),
        ended=known(number, told, "ended"),
        model=word(told, "model"),
        tenant=word(told, "tenant"),
        evaluation=whole(progress, "evaluation"),
        num_evaluations=whole(progress, "num_evaluations"),
        pictures=whole(progress, "pictures"),
        num_pictures=whole(progress, "num_pictures"),
        predicted_seconds=known(number, told, "predicted_seconds"),
        deadline=known(number, told, "deadline"),
        deadline_met=known(truth, told, "deadline_met"),
        error=_error(told, url),
    )


def _error(told: Json, url: str) -> MusivaError | None:
    if told.get("error") is None:
        return None
    return failure_of(200, json.dumps({"error": object_of(told["error"])}).encode(), url=url)
