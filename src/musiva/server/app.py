"""The HTTP API: OpenAI's image generation, models, health, metrics, and a page."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musiva.core.errors import Cancelled
from musiva.core.types import Request as EngineRequest
from musiva.engine import Engine
from musiva.server.errors import ApiError, add_error_handlers
from musiva.server.images import ImagesBody, parameters, parse_body, to_request
from musiva.server.jobs import disconnected, run_request
from musiva.server.models import describe_model
from musiva.server.pictures import FileStore, encode_picture
from musiva.telemetry import Metrics

__all__ = ["AppConfig", "create_app"]

CLIENT_CLOSED_REQUEST = 499
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """max_body_bytes: of a request. max_file_bytes: of all pictures kept for `response_format`
    "url".

    threads: that check prompts and encode pictures.
    """

    max_body_bytes: int = 1 << 20
    max_file_bytes: int = 64 << 20
    threads: int = min(4, os.cpu_count() or 1)


def create_app(engine: Engine, *, metrics: Metrics, config: AppConfig | None = None) -> FastAPI:
    """The API over an engine, which stays the caller's to close.

    metrics: what the engine observes into, `Engine(pipeline, observe=metrics.observe)`; one per
    app. Setting the asyncio event `app.state.stopping` ends running requests with 503.
    """
    api = ImagesApi(engine, metrics, config or AppConfig())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        api.pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="Musiva", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.stopping = api.stopping
    app.add_middleware(CountRequests, metrics=metrics)
    add_error_handlers(app)
    metrics.watch_waiting(lambda: engine.num_waiting)
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    model = describe_model(engine.pipeline, created=int(time.time()))
    schema = {"content": {"application/json": {"schema": ImagesBody.model_json_schema()}}}

    app.post("/v1/images/generations", openapi_extra={"requestBody": schema})(api.generate)

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, object]:
        if name != model["id"]:
            message = f"model: got {name!r}; allowed: {model['id']}"
            raise ApiError(404, message, code="model_not_found", param="model")
        return model

    @app.get("/files/{name}")
    async def file(name: str) -> Response:
        stored = api.files.get(name)
        if stored is None:
            raise HTTPException(404, "no such file, or no longer")
        return Response(
            stored.content,
            media_type=stored.media_type,
            headers={"Cache-Control": "private, max-age=3600, immutable"},
        )

    @app.get("/healthz")
    async def health() -> dict[str, object]:
        engine.check()
        return {"status": "ok", "model": engine.pipeline.name, "waiting": engine.num_waiting}

    @app.get("/metrics")
    def figures() -> Response:
        return Response(metrics.render(), headers={"Content-Type": metrics.content_type})

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=PAGE_HEADERS)

    return app


class ImagesApi:
    """`POST /v1/images/generations`: the event loop only waits, a pool checks prompts and encodes
    pictures.
    """

    def __init__(self, engine: Engine, metrics: Metrics, config: AppConfig) -> None:
        self.engine = engine
        self.metrics = metrics
        self.config = config
        self.files = FileStore(config.max_file_bytes)
        self.pool = ThreadPoolExecutor(config.threads, thread_name_prefix="musiva-pictures")
        self.stopping = asyncio.Event()

    async def generate(self, http: Request) -> Response:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            content = await _read_body(http, self.config.max_body_bytes)
            body = parse_body(content, self.engine.pipeline.defaults.max_images)
            request = await loop.run_in_executor(self.pool, to_request, self.engine, body)
            pictures: dict[int, asyncio.Future[dict[str, object]]] = {}

            def encode(index: int, pixels_HWC: np.ndarray) -> None:
                work = partial(self._picture, http, body, request, index, pixels_HWC)
                pictures[index] = loop.run_in_executor(self.pool, work)

            await run_request(
                self.engine,
                request,
                encode,
                gone=disconnected(http.receive),
                stopping=self.stopping,
            )
            data = [await pictures[index] for index in range(request.num_images)]
        except (Cancelled, ClientDisconnect):
            # Nobody reads this answer; its status is for the metrics.
            self.metrics.cancelled()
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        answer = {
            "created": int(time.time()),
            "data": data,
            "model": self.engine.pipeline.name,
            "size": f"{request.size[0]}x{request.size[1]}",
            "output_format": body.format,
            "steps": request.path.steps,
            "guidance_scale": request.guidance,
            "timing": {"seconds": round(time.perf_counter() - started, 4)},
        }
        if body.without_effect:
            answer["warnings"] = body.without_effect
        return await loop.run_in_executor(self.pool, JSONResponse, answer)

    def _picture(
        self,
        http: Request,
        body: ImagesBody,
        request: EngineRequest,
        index: int,
        pixels_HWC: np.ndarray,
    ) -> dict[str, object]:
        """One entry of "data"; runs in the pool."""
        compression = 100 if body.output_compression is None else body.output_compression
        known = parameters(self.engine.pipeline.name, request, index)
        content = encode_picture(pixels_HWC, body.format, compression, known)
        seed = request.seed + index
        if body.response_format == "url":
            name = self.files.put(content, body.format)
            return {"url": str(http.base_url.replace(path=f"/files/{name}")), "seed": seed}
        return {"b64_json": base64.b64encode(content).decode("ascii"), "seed": seed}


class CountRequests:
    """ASGI middleware: counts requests by declared route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.http_started()
        try:
            await self.app(scope, receive, observed_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.http_ended(route, status)


async def _read_body(http: Request, limit: int) -> bytes:
    """Raises ApiError (413). A body over the limit is read on for a while, so that its sender sees
    the answer.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in http.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > 16 * limit:
            break
    if size > limit:
        message = f"body: got more than {limit} bytes; allowed: at most {limit} bytes"
        raise ApiError(413, message, code="body_too_large")
    return b"".join(chunks)
