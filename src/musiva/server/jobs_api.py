"""`/v1/jobs`: requests that outlive their connection."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import URL

from musiva.core.errors import InvalidInput
from musiva.server.bodies import JobBody
from musiva.server.drawing import Drawing
from musiva.server.errors import ApiError, logged
from musiva.server.job_answers import STATUSES, JobList, Status
from musiva.server.job_events import JobEvents
from musiva.server.job_record import JobRecord
from musiva.server.job_store import Claim, JobStore
from musiva.server.reading import skip_body
from musiva.server.requests import to_request
from musiva.server.shared import Shared
from musiva.server.stream import EventStream
from musiva.server.submitted import Submitted

__all__ = ["JobsApi"]

KINDS = ("admitted", "progress", "preview", "picture")
KEY = re.compile(r"[!-~]{1,255}")
LIMIT = re.compile(r"[0-9]{1,3}")
MAX_LIMIT, DEFAULT_LIMIT = 100, 20
UNCACHED = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Order:
    """A job that is asked for. created: seconds since 1970; started: of `time.perf_counter`."""

    body: JobBody
    request_id: str
    tenant: str
    created: float
    started: float
    base_url: URL
    key: str | None


class JobsApi:
    """Each job is a task of its own, from the place that it takes to its result."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._tasks: set[asyncio.Task[None]] = set()
        self.store = JobStore(shared.config, shared.clock)

    async def create(self, http: Request) -> Response:
        """202 once it is admitted. Raises ApiError, and what the engine refuses."""
        created, started = self._shared.clock(), time.perf_counter()
        body, tenant = await self._shared.read(http, JobBody)
        record, again = await self.made(http, body, tenant, created, started)
        if again:
            return self._told(record, 200, {"Idempotent-Replayed": "true"})
        return self._told(record, 202)

    async def made(
        self, http: Request, body: JobBody, tenant: str, created: float, started: float
    ) -> tuple[JobRecord, bool]:
        """A job that is admitted, and whether its key came before. created: seconds since 1970;
        started: of `time.perf_counter`. Raises ApiError, and what the engine refuses.
        """
        key = _idempotency_key(http)
        order = Order(body, http.state.request_id, tenant, created, started, http.base_url, key)
        if key is None:
            return await asyncio.shield(self._begin(order)), False
        digest = hashlib.sha256(body.model_dump_json().encode()).digest()
        claim = self.store.claimed(tenant, key, digest)
        if claim is not None:
            return await asyncio.shield(claim.creation), True
        claim = Claim(digest, self._begin(order))
        self.store.claim(tenant, key, claim)
        return await asyncio.shield(claim.creation), False

    async def page(self, http: Request) -> Response:
        """Raises ApiError or InvalidInput for a query that is not allowed."""
        asked = dict(http.query_params)
        unknown = sorted(set(asked) - {"limit", "after", "status"})
        if unknown:
            message = f"{', '.join(unknown)}: no such parameter; known: after, limit, status"
            raise ApiError(400, message, code="unknown_parameter", param=unknown[0])
        records, more = self.store.page(
            self._shared.holder(http),
            limit=_limit(asked.get("limit")),
            after=asked.get("after"),
            status=_status(asked.get("status")),
        )
        told = JobList(data=[record.told() for record in records], has_more=more)
        return JSONResponse(told.model_dump(), headers=UNCACHED)

    async def get(self, http: Request, job_id: str) -> Response:
        return JSONResponse(self.found(http, job_id).told().model_dump(), headers=UNCACHED)

    async def result(self, http: Request, job_id: str) -> Response:
        """Raises ApiError (409) if there is none."""
        record = self.succeeded(http, job_id)
        return Response(record.result, media_type="application/json", headers=UNCACHED)

    def succeeded(self, http: Request, job_id: str) -> JobRecord:
        """One that has a result. Raises ApiError: 404 for one that is not there, or not the
        caller's, 409 for one without.
        """
        record = self.found(http, job_id)
        if record.status == "succeeded":
            return record
        if record.status == "cancelled":
            raise ApiError(409, f"job {record.id} was cancelled", code="job_cancelled")
        if record.error is not None:
            message = f"job {record.id} failed: {record.error.message}"
            raise ApiError(409, message, code="job_failed", param=record.error.param)
        raise ApiError(409, f"job {record.id} is {record.status}", code="not_ready")

    async def cancel(self, http: Request, job_id: str) -> Response:
        """The same once more for one that was cancelled. Raises ApiError (409) for one that ended
        otherwise.
        """
        await skip_body(http, self._shared.config.body_seconds)
        record = self.found(http, job_id)
        if not record.has_ended:
            record.cancel(self._shared.clock())
            self.store.end(record)
        if record.status != "cancelled":
            allowed = f"a job that has not ended; this one has {record.status}"
            error = InvalidInput("job", record.id, allowed)
            raise ApiError(409, str(error), code="job_ended", param="job")
        return JSONResponse(record.told().model_dump())

    async def events(self, http: Request, job_id: str) -> Response:
        """Whoever stops reading stops nothing else."""
        events = EventStream(
            JobEvents(self._shared, self.found(http, job_id)),
            http.state.request_id,
            left=lambda: None,
            stall_seconds=self._shared.config.stall_seconds,
        )
        return events if http.method == "GET" else Response(headers=dict(events.headers))

    def found(self, http: Request, job_id: str) -> JobRecord:
        """Raises ApiError (404) for one that is not there, or not the caller's."""
        return self.store.get(job_id, self._shared.holder(http))

    def _told(
        self, record: JobRecord, status: int, headers: Mapping[str, str] | None = None
    ) -> Response:
        location = {"Location": f"/v1/jobs/{record.id}"}
        return JSONResponse(record.told().model_dump(), status, {**location, **(headers or {})})

    def _begin(self, order: Order) -> asyncio.Future[JobRecord]:
        """The job, once it is admitted. Raises ApiError (429) at once when the server is full."""
        self._shared.places.check()
        creation: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        # Whoever waits for it may be gone, and then nobody looks at why it was refused.
        creation.add_done_callback(lambda done: done.cancelled() or done.exception())
        task = asyncio.create_task(self._work(order, creation))
        # A loop holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return creation

    async def _work(self, order: Order, creation: asyncio.Future[JobRecord]) -> None:
        """A job's life. What goes wrong is told by `creation` until it is admitted, and by its
        record from then on.
        """
        shared, record = self._shared, None
        try:
            with shared.places.take():
                asked = (shared.engine, order.body, order.request_id, order.tenant, shared.clock)
                request = await shared.in_pool(to_request, *asked)
                drawing = Drawing(shared, order.body, request, order.started, order.base_url)
                submitted = Submitted(
                    shared.engine, request, None, kinds=KINDS, stopping=shared.stopping
                )
                with submitted:
                    predicted = await submitted.admitted()
                    record = self._entered(order, drawing, predicted)
                    creation.set_result(record)
                    result = await self._drawn(record, drawing, submitted)
            record.succeed(result, shared.clock())
            self.store.end(record)
        except Exception as error:
            # The boundary of a request: there is no connection that it could end.
            if record is None:
                creation.set_exception(error)
                return
            record.fail(logged(record.id, error).detail, shared.clock())
            self.store.end(record)
        finally:
            creation.cancel()

    def _entered(self, order: Order, drawing: Drawing, predicted: float) -> JobRecord:
        task = asyncio.current_task()
        assert task is not None
        record = JobRecord(
            drawing.request,
            model=self._shared.engine.pipeline.name,
            num_evaluations=drawing.num_evaluations,
            created=order.created,
            now=self._shared.clock(),
            predicted=predicted,
            task=task,
            key=order.key,
        )
        self.store.add(record)
        return record

    async def _drawn(self, record: JobRecord, drawing: Drawing, submitted: Submitted) -> bytes:
        """The answer; each picture is encoded while the next ones are still made."""
        in_pool, encoded = self._shared.in_pool, {}
        warnings = dict.fromkeys(drawing.warnings)
        async for event in submitted:
            record.hear(event, self._shared.clock())
            if event.kind == "picture":
                encoded[event.index] = in_pool(drawing.picture, event)
                warnings |= dict.fromkeys(drawing.told_by(event))
        pictures = (encoded[index] for index in range(drawing.request.num_images))
        data = await asyncio.gather(*pictures)
        return await in_pool(drawing.answer, data, list(warnings))


def _idempotency_key(http: Request) -> str | None:
    """Raises InvalidInput."""
    key = http.headers.get("idempotency-key")
    if key is not None and not KEY.fullmatch(key):
        raise InvalidInput("Idempotency-Key", key, "1 to 255 visible ASCII characters")
    return key


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    value = int(text) if LIMIT.fullmatch(text) else 0
    if not 1 <= value <= MAX_LIMIT:
        raise InvalidInput("limit", text, f"a whole number from 1 to {MAX_LIMIT}")
    return value


def _status(text: str | None) -> Status | None:
    for status in STATUSES:
        if text == status:
            return status
    if text is None:
        return None
    raise InvalidInput("status", text, ", ".join(STATUSES))
