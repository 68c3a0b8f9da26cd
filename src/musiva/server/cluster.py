"""`/v1/cluster`: the workers of a server, and what is done about them."""

from __future__ import annotations

from dataclasses import asdict

from fastapi.responses import JSONResponse

from musiva.core.errors import InvalidInput
from musiva.engine import WorkerStanding
from musiva.server.job_answers import ClusterAnswer, LinkAnswer, WorkerAnswer
from musiva.server.shared import Shared

__all__ = ["cluster", "drain"]


def cluster(shared: Shared) -> JSONResponse:
    told = ClusterAnswer(workers=[_told(one) for one in shared.engine.members()])
    return JSONResponse(told.model_dump(), headers={"Cache-Control": "no-store"})


async def drain(shared: Shared, worker: str) -> JSONResponse:
    """Raises InvalidInput for a worker that is not there, Unavailable where it cannot be done
    without."""
    if not (worker.isascii() and worker.isdecimal() and len(worker) <= 9):
        raise InvalidInput("worker", worker, "a whole number from 0")
    await shared.questions.ask(shared.engine.drain, int(worker))
    return cluster(shared)


def _told(one: WorkerStanding) -> WorkerAnswer:
    return WorkerAnswer(
        worker=one.number,
        phase=one.phase,  # type: ignore[arg-type]
        pid=one.pid,
        life=one.life,
        requests=one.requests,
        waiting=one.waiting,
        work_seconds=round(one.seconds, 4),
        steps=one.steps,
        store_bytes=one.store_bytes,
        found=one.found,
        not_found=one.not_found,
        host=one.host,
        links=[LinkAnswer(**asdict(link)) for link in one.links],
    )
