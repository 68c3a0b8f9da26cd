"""The jobs that a server knows, within bounds, and the keys by which they are asked for again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from musiva.core.errors import InvalidInput
from musiva.server.config import AppConfig
from musiva.server.errors import ApiError
from musiva.server.job_answers import Status
from musiva.server.job_record import JobRecord

__all__ = ["Claim", "JobStore"]


@dataclass(frozen=True, slots=True)
class Claim:
    """On a key. digest: of the body that came with it. creation: what became of that."""

    digest: bytes
    creation: asyncio.Future[JobRecord]


class JobStore:
    """For one event loop. clock: seconds since 1970. What has ended goes when it is too old, or
    when there are too many or too large ones, the oldest first; the last one stays, however large.
    """

    def __init__(self, config: AppConfig, clock: Callable[[], float]) -> None:
        self._config, self._clock = config, clock
        # In the order of their creation.
        self._jobs: dict[str, JobRecord] = {}
        self._ended: deque[JobRecord] = deque()
        self._bytes = 0
        self._claims: dict[tuple[str, str], Claim] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def num_bytes(self) -> int:
        """Of the results of those that have ended."""
        return self._bytes

    def add(self, record: JobRecord) -> None:
        self._drop()
        self._jobs[record.id] = record

    def end(self, record: JobRecord) -> None:
        """To be told of each that has ended."""
        self._ended.append(record)
        self._bytes += record.num_bytes
        self._drop()

    def remove(self, record: JobRecord) -> None:
        """One that has ended."""
        if record.id in self._jobs:
            self._ended.remove(record)
            self._forget(record)

    def get(self, job_id: str, tenant: str | None) -> JobRecord:
        """tenant: whose jobs may be seen; None for all. Raises ApiError (404)."""
        self._drop()
        record = self._jobs.get(job_id)
        if record is None or tenant not in (None, record.tenant):
            error = InvalidInput("job", job_id, "the id of a job that is still kept")
            raise ApiError(404, str(error), code="not_found", param="job")
        return record

    def page(
        self, tenant: str | None, *, limit: int, after: str | None, status: Status | None
    ) -> tuple[list[JobRecord], bool]:
        """The newest first, and whether there are more. after: begin behind this one. Raises
        InvalidInput for one that is not there.
        """
        self._drop()
        found: list[JobRecord] = []
        begun = after is None
        for record in reversed(self._jobs.values()):
            if tenant not in (None, record.tenant):
                continue
            if not begun:
                begun = record.id == after
            elif status in (None, record.status):
                found.append(record)
                if len(found) > limit:
                    break
        if not begun:
            raise InvalidInput("after", after, "the id of a job that is still kept")
        return found[:limit], len(found) > limit

    def claimed(self, tenant: str, key: str, digest: bytes) -> Claim | None:
        """The claim on a key. Raises ApiError (409) if another body came with it."""
        self._drop()
        claim = self._claims.get((tenant, key))
        if claim is not None and claim.digest != digest:
            error = InvalidInput("Idempotency-Key", key, "another one; it came with another body")
            code, param = "idempotency_conflict", "Idempotency-Key"
            raise ApiError(409, str(error), code=code, param=param)
        return claim

    def claim(self, tenant: str, key: str, claim: Claim) -> None:
        """It lives as long as its job; not at all, if none comes of it."""
        self._claims[tenant, key] = claim

        def settle(creation: asyncio.Future[JobRecord]) -> None:
            if creation.cancelled() or creation.exception() is not None:
                self._claims.pop((tenant, key), None)

        claim.creation.add_done_callback(settle)

    def _drop(self) -> None:
        """What has ended and is too much, or too old."""
        config, oldest = self._config, self._clock() - self._config.job_seconds
        while self._ended:
            record = self._ended[0]
            assert record.ended is not None
            large = self._bytes > config.max_job_bytes and len(self._ended) > 1
            many = len(self._ended) > config.max_ended_jobs
            if not (large or many or record.ended <= oldest):
                return
            self._forget(self._ended.popleft())

    def _forget(self, record: JobRecord) -> None:
        self._bytes -= record.num_bytes
        del self._jobs[record.id]
        if record.key is not None:
            self._claims.pop((record.tenant, record.key), None)
