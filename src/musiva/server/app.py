"""The HTTP API: OpenAI's images and videos, jobs, models, files, health, metrics, and the
studio.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.middleware.cors import CORSMiddleware

from musiva import __version__, studio
from musiva.engine import Front
from musiva.server.answers import Health, Model, ModelList
from musiva.server.cluster import cluster, drain
from musiva.server.config import AppConfig
from musiva.server.errors import ApiError, add_error_handlers
from musiva.server.generations import generate
from musiva.server.job_answers import EstimatesAnswer
from musiva.server.jobs_api import JobsApi
from musiva.server.middleware import (
    REQUEST_ID,
    AnswerUnforeseen,
    CountRequests,
    NameRequests,
    RequireKey,
)
from musiva.server.models import describe_model
from musiva.server.openapi import openapi_document
from musiva.server.reading import skip_body
from musiva.server.shared import Shared
from musiva.server.standing import estimates, standing
from musiva.server.tenants import Access
from musiva.server.videos import VideosApi
from musiva.telemetry import Metrics

__all__ = ["create_app"]

Handler = TypeVar("Handler", bound=Callable[..., object])
# How long figures for Prometheus wait for the step that the engine is at.
STANDING_SECONDS = 1.0


def create_app(
    engine: Front,
    *,
    metrics: Metrics,
    config: AppConfig | None = None,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The API over an engine, which stays the caller's to close.

    metrics: what the engine observes into, `Engine(pipeline, observe=metrics.observe)`; one per
    app. clock: seconds since 1970. Setting the asyncio event `app.state.stopping` ends running
    requests and jobs with 503, and streams with an error event.
    """
    config = config or AppConfig()
    shared = Shared(engine, metrics, config, clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        shared.close()

    app = FastAPI(title="Musiva", openapi_url=None, lifespan=lifespan)
    app.state.stopping = shared.stopping
    add_error_handlers(app, metrics)
    _add_middleware(app, metrics, config, shared.access)
    metrics.watch_waiting(lambda: engine.num_waiting)
    metrics.watch_store(lambda: engine.store_figures)
    metrics.watch_cache(lambda: engine.cache_figures)
    metrics.watch_workers(engine.members)
    metrics.watch_links(lambda: engine.links, engine.members)
    metrics.watch_standing(lambda: shared.questions.latest(STANDING_SECONDS))
    model = describe_model(engine, created=int(clock()))
    _add_images(app, shared)
    jobs = JobsApi(shared)
    _add_jobs(app, jobs)
    _add_videos(app, VideosApi(shared, jobs))
    _add_standing(app, shared)
    _add_cluster(app, shared)
    _add_models(app, model)
    _add_service(app, shared)
    document = openapi_document(model, keyed=shared.access.asks_for_a_key)
    _get(app, "/openapi.json")(lambda: document)
    app.router.routes.extend(studio.routes())
    return app


def _get(app: FastAPI, path: str) -> Callable[[Handler], Handler]:
    """HEAD too: every server answers it where it answers GET (RFC 9110, section 9.1)."""
    return app.api_route(path, methods=["GET", "HEAD"])


def _add_middleware(app: FastAPI, metrics: Metrics, config: AppConfig, access: Access) -> None:
    """The last one added stands outside of the others."""
    if access.asks_for_a_key:
        app.add_middleware(RequireKey, access=access)
    app.add_middleware(AnswerUnforeseen)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=("Retry-After", "Location", "Idempotent-Replayed", REQUEST_ID),
        )
    app.add_middleware(NameRequests)
    app.add_middleware(CountRequests, metrics=metrics)


def _add_images(app: FastAPI, shared: Shared) -> None:
    @app.post("/v1/images/generations")
    async def images(http: Request) -> Response:
        return await generate(shared, http)

    @app.post("/v1/images/edits")
    @app.post("/v1/images/variations")
    async def not_here(http: Request) -> Response:
        await skip_body(http, shared.config.body_seconds)
        name = shared.engine.pipeline.name
        message = f"{http.url.path}: not supported by this model, {name!r}, which makes pictures"
        raise ApiError(400, f"{message} from a prompt: /v1/images/generations", code="unsupported")

    @_get(app, "/files/{name}")
    async def file(name: str) -> Response:
        stored = shared.files.get(name)
        if stored is None:
            raise HTTPException(404, "no such file, or no longer")
        return Response(
            stored.content,
            media_type=stored.media_type,
            headers={"Cache-Control": "private, max-age=3600, immutable"},
        )


def _add_jobs(app: FastAPI, jobs: JobsApi) -> None:
    @app.post("/v1/jobs")
    async def create_job(http: Request) -> Response:
        return await jobs.create(http)

    @_get(app, "/v1/jobs")
    async def list_jobs(http: Request) -> Response:
        return await jobs.page(http)

    @_get(app, "/v1/jobs/{job}")
    async def one_job(http: Request, job: str) -> Response:
        return await jobs.get(http, job)

    @_get(app, "/v1/jobs/{job}/result")
    async def job_result(http: Request, job: str) -> Response:
        return await jobs.result(http, job)

    @app.post("/v1/jobs/{job}/cancel")
    async def cancel_job(http: Request, job: str) -> Response:
        return await jobs.cancel(http, job)

    @_get(app, "/v1/jobs/{job}/events")
    async def job_events(http: Request, job: str) -> Response:
        return await jobs.events(http, job)


def _add_videos(app: FastAPI, videos: VideosApi) -> None:
    @app.post("/v1/videos")
    async def create_video(http: Request) -> Response:
        return await videos.create(http)

    @_get(app, "/v1/videos/{video}")
    async def one_video(http: Request, video: str) -> Response:
        return await videos.get(http, video)

    @_get(app, "/v1/videos/{video}/content")
    async def video_content(http: Request, video: str) -> Response:
        return await videos.content(http, video)

    @app.delete("/v1/videos/{video}")
    async def delete_video(http: Request, video: str) -> Response:
        return await videos.delete(http, video)


def _add_standing(app: FastAPI, shared: Shared) -> None:
    @_get(app, "/v1/standing")
    async def how_it_stands() -> Response:
        return await standing(shared)

    @app.post("/v1/estimates")
    async def what_it_would_get(http: Request) -> EstimatesAnswer:
        return await estimates(shared, http)


def _add_cluster(app: FastAPI, shared: Shared) -> None:
    @_get(app, "/v1/cluster")
    async def workers() -> Response:
        return cluster(shared)

    @app.post("/v1/cluster/{worker}/drain")
    async def drain_worker(http: Request, worker: str) -> Response:
        await skip_body(http, shared.config.body_seconds)
        return await drain(shared, worker)


def _add_models(app: FastAPI, model: Model) -> None:
    listed = ModelList(data=[model])

    @_get(app, "/v1/models")
    async def models() -> ModelList:
        return listed

    @_get(app, "/v1/models/{name:path}")
    async def one_model(name: str) -> Model:
        if name != model.id:
            message = f"model: got {name!r}; allowed: {model.id}"
            raise ApiError(404, message, code="model_not_found", param="model")
        return model


def _add_service(app: FastAPI, shared: Shared) -> None:
    engine, metrics, instance = shared.engine, shared.metrics, uuid.uuid4().hex

    @_get(app, "/healthz")
    async def health() -> JSONResponse:
        engine.check()
        running = engine.num_running
        told = Health(
            model=engine.pipeline.name,
            waiting=max(engine.num_waiting - running, 0),
            running=running,
            instance=instance,
            version=__version__,
        )
        return JSONResponse(told.model_dump(), headers={"Cache-Control": "no-store"})

    @_get(app, "/metrics")
    def figures() -> Response:
        return Response(metrics.render(), headers={"Content-Type": metrics.content_type})
