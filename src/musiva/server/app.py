"""The HTTP API: OpenAI's image generation, models, files, health, metrics, and the studio."""

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
from musiva.engine import Engine
from musiva.server.answers import Health, Model, ModelList
from musiva.server.config import AppConfig
from musiva.server.errors import ApiError, add_error_handlers
from musiva.server.generations import ImagesApi, skip_body
from musiva.server.middleware import (
    REQUEST_ID,
    AnswerUnforeseen,
    CountRequests,
    NameRequests,
    RequireKey,
)
from musiva.server.models import describe_model
from musiva.server.openapi import openapi_document
from musiva.telemetry import Metrics

__all__ = ["create_app"]

Handler = TypeVar("Handler", bound=Callable[..., object])
# Of a request that is refused whatever it holds: so much is read, so that its sender sees why.
MAX_REFUSED_BYTES = 64 << 20


def create_app(engine: Engine, *, metrics: Metrics, config: AppConfig | None = None) -> FastAPI:
    """The API over an engine, which stays the caller's to close.

    metrics: what the engine observes into, `Engine(pipeline, observe=metrics.observe)`; one per
    app. Setting the asyncio event `app.state.stopping` ends running requests with 503, and streams
    with an error event.
    """
    config = config or AppConfig()
    api = ImagesApi(engine, metrics, config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        api.pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="Musiva", openapi_url=None, lifespan=lifespan)
    app.state.stopping = api.stopping
    add_error_handlers(app)
    _add_middleware(app, metrics, config)
    metrics.watch_waiting(lambda: engine.num_waiting)
    metrics.watch_store(lambda: engine.store_figures)
    model = describe_model(engine, created=int(time.time()))
    _add_images(app, api)
    _add_models(app, model)
    _add_service(app, api, metrics)
    document = openapi_document(model, keyed=config.api_key is not None)
    _get(app, "/openapi.json")(lambda: document)
    app.router.routes.extend(studio.routes())
    return app


def _get(app: FastAPI, path: str) -> Callable[[Handler], Handler]:
    """HEAD too: every server answers it where it answers GET (RFC 9110, section 9.1)."""
    return app.api_route(path, methods=["GET", "HEAD"])


def _add_middleware(app: FastAPI, metrics: Metrics, config: AppConfig) -> None:
    """The last one added stands outside of the others."""
    if config.api_key is not None:
        app.add_middleware(RequireKey, key=config.api_key)
    app.add_middleware(AnswerUnforeseen)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("Retry-After", REQUEST_ID),
        )
    app.add_middleware(NameRequests)
    app.add_middleware(CountRequests, metrics=metrics)


def _add_images(app: FastAPI, api: ImagesApi) -> None:
    app.post("/v1/images/generations")(api.generate)

    @app.post("/v1/images/edits")
    @app.post("/v1/images/variations")
    async def not_here(http: Request) -> Response:
        await skip_body(http, MAX_REFUSED_BYTES, api.config.body_seconds)
        name = api.engine.pipeline.name
        message = f"{http.url.path}: not supported by this model, {name!r}, which makes pictures"
        raise ApiError(400, f"{message} from a prompt: /v1/images/generations", code="unsupported")

    @_get(app, "/files/{name}")
    async def file(name: str) -> Response:
        stored = api.files.get(name)
        if stored is None:
            raise HTTPException(404, "no such file, or no longer")
        return Response(
            stored.content,
            media_type=stored.media_type,
            headers={"Cache-Control": "private, max-age=3600, immutable"},
        )


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


def _add_service(app: FastAPI, api: ImagesApi, metrics: Metrics) -> None:
    engine, instance = api.engine, uuid.uuid4().hex

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
