"""`/v1/standing` and `/v1/estimates`: how the engine stands, and what a request would get."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import JSONResponse

from musiva.server.bodies import ImagesBody
from musiva.server.job_answers import EstimateAnswer, EstimatesAnswer, StandingAnswer
from musiva.server.requests import to_request
from musiva.server.shared import Shared

__all__ = ["estimates", "standing"]


async def standing(shared: Shared) -> JSONResponse:
    """Raises Unavailable."""
    now = await shared.questions.standing()
    told = StandingAnswer(
        waiting=now.waiting,
        running=now.running,
        backlog_seconds=round(now.backlog, 4),
        backlog_floor_seconds=round(now.backlog_floor, 4),
        goodput=round(now.goodput, 4),
        attainment=None if now.attainment is None else round(now.attainment, 4),
        refused=now.refused,
        quality=None if now.quality is None else round(now.quality, 2),
    )
    return JSONResponse(told.model_dump(), headers={"Cache-Control": "no-store"})


async def estimates(shared: Shared, http: Request) -> EstimatesAnswer:
    """Raises ApiError, and what the engine refuses; nothing is submitted."""
    body, tenant = await shared.read(http, ImagesBody)
    with shared.asking.take():
        asked = (shared.engine, body, http.state.request_id, tenant, shared.clock)
        request = await shared.in_pool(to_request, *asked)
        found = await shared.questions.ask(shared.engine.estimates, request)
    return EstimatesAnswer(
        deadline=None if request.deadline is None else round(request.deadline, 4),
        estimates=[
            EstimateAnswer(
                quality=one.quality,
                finish_seconds=round(max(one.finish, 0.0), 4),
                work_seconds=round(max(one.work, 0.0), 4),
                refusal=one.refusal,
            )
            for one in found
        ],
    )
