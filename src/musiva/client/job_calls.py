"""The calls about jobs, as the two clients share them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from urllib.parse import quote, urlencode

from musiva.client.answers import WholeReader, pictures_of
from musiva.client.calls import Calls
from musiva.client.flow import Call
from musiva.client.job_answers import JobEventReader, job_of, page_of
from musiva.client.jobs_told import Job, JobEvent, JobPage
from musiva.client.options import body_of
from musiva.client.pictures import Picture
from musiva.client.retry import Retry, Timeout
from musiva.core.errors import InvalidInput

__all__ = ["JobCalls"]

JOBS = "/v1/jobs"


class JobCalls:
    """Jobs are named by their id, or by what the server told of them. Raises InvalidInput."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @property
    def retry(self) -> Retry:
        return self._calls.retry

    def create(
        self,
        prompt: str,
        options: Mapping[str, object],
        previews: int,
        idempotency_key: str | None,
        timeout: Timeout | float | None,
    ) -> Call[Job]:
        """With a key of its own, so that a second attempt makes no second job."""
        body = body_of(prompt, options)
        if previews:
            body["previews"] = previews
        key = uuid.uuid4().hex if idempotency_key is None else _header(idempotency_key)
        named = {"Idempotency-Key": key}
        return self._calls.post(JOBS, body, _job, sent=named, headers=named, timeout=timeout)

    def get(self, job: str | Job) -> Call[Job]:
        name, path = _path(job)
        return self._calls.get(path, _job, sent={"job": name})

    def page(self, limit: int | None, after: str | Job | None, status: str | None) -> Call[JobPage]:
        behind = None if after is None else _path(after)[0]
        asked: dict[str, object] = {"limit": limit, "after": behind, "status": status}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return self._calls.get(f"{JOBS}?{query}" if query else JOBS, _page, sent=asked)

    def cancel(self, job: str | Job) -> Call[Job]:
        name, path = _path(job)
        return self._calls.post(f"{path}/cancel", None, _job, sent={"job": name})

    def result(self, job: str | Job, timeout: Timeout | float | None) -> Call[list[Picture]]:
        name, path = _path(job)
        reader = partial(WholeReader, parse=pictures_of)
        return self._calls.get(f"{path}/result", reader, sent={"job": name}, timeout=timeout)

    def events(self, job: str | Job, timeout: Timeout | float | None) -> Call[JobEvent]:
        name, path = _path(job)
        sent = {"job": name}
        return self._calls.get(f"{path}/events", JobEventReader, sent=sent, timeout=timeout)


def _job(url: str) -> WholeReader[Job]:
    return WholeReader(url, partial(job_of, url=url))


def _page(url: str) -> WholeReader[JobPage]:
    return WholeReader(url, partial(page_of, url=url))


def _path(job: str | Job) -> tuple[str, str]:
    """A job's id, and where it is."""
    name = job.id if isinstance(job, Job) else job
    if not isinstance(name, str) or not name:
        raise InvalidInput("job", name, "a job, or the id of one")
    return name, f"{JOBS}/{quote(name, safe='')}"


def _header(key: object) -> str:
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or not key:
        raise InvalidInput("idempotency_key", key, "1 to 255 visible ASCII characters")
    return key
