"""`POST /v1/images/generations`: from a body to an answer, or to a stream of events."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from musiva.core.errors import Cancelled, InvalidInput
from musiva.core.types import Event
from musiva.core.types import Request as EngineRequest
from musiva.engine import Engine
from musiva.server.answers import (
    Completed,
    ImagesAnswer,
    InlinePicture,
    LinkedPicture,
    PartialImage,
    Progress,
    Quality,
    Timing,
    Tokens,
    Usage,
)
from musiva.server.config import AppConfig
from musiva.server.errors import ApiError
from musiva.server.images import QUALITIES, ImagesBody, parse_body, to_request
from musiva.server.jobs import Job
from musiva.server.limits import Places
from musiva.server.pictures import FileStore, encode_picture
from musiva.server.stream import EventStream
from musiva.telemetry import Metrics

__all__ = ["ImagesApi", "skip_body"]

T = TypeVar("T")
CLIENT_CLOSED_REQUEST = 499
# Of previews in a format of their own, which says that speed matters.
PREVIEW_COMPRESSION = 90
# So many times the limit is read of a body that is too long, so that its sender sees the answer.
READ_ON = 16
# How often a stream looks whether its request has moved up in the queue, and how many times it
# finds nothing to tell before it says so.
POLL_SECONDS = 0.5
QUIET_POLLS = 30
# The highest qualities that OpenAI's words "low" and "medium" stand for.
LOW, MEDIUM = 69, 89


class ImagesApi:
    """What all requests share. The event loop only waits; a pool checks prompts and encodes
    pictures.
    """

    def __init__(self, engine: Engine, metrics: Metrics, config: AppConfig) -> None:
        self.engine = engine
        self.metrics = metrics
        self.config = config
        self.files = FileStore(config.max_file_bytes)
        self.places = Places(config.max_waiting)
        self.pool = ThreadPoolExecutor(config.threads, thread_name_prefix="musiva-pictures")
        self.stopping = asyncio.Event()

    async def generate(self, http: Request) -> Response:
        started = time.perf_counter()
        try:
            content = await _read_body(http, self.config)
            _check_media_type(http)
            body = parse_body(content, self.engine.pipeline.defaults.max_images)
            request_id = http.state.request_id
            request = await self.in_pool(to_request, self.engine, body, request_id)
            generation = Generation(self, body, request, started, http)
            if not body.stream:
                return await generation.answer()
            stall = self.config.stall_seconds
            return EventStream(generation.events, request.id, self.metrics, stall_seconds=stall)
        except (Cancelled, ClientDisconnect):
            # Nobody reads this answer; its status is for the metrics.
            self.metrics.cancelled()
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    def in_pool(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self.pool, work, *arguments)

    @contextmanager
    def job(
        self, request: EngineRequest, receive: Receive, kinds: Collection[str]
    ) -> Iterator[Job]:
        """A place, and the request in the engine. Raises ApiError (429) or Unavailable."""
        with (
            self.places.take(),
            Job(self.engine, request, receive, kinds=kinds, stopping=self.stopping) as job,
        ):
            yield job


@dataclass(frozen=True, slots=True)
class Generation:
    """One checked request. started: seconds of `time.perf_counter` when it came."""

    api: ImagesApi
    body: ImagesBody
    request: EngineRequest
    started: float
    http: Request

    async def answer(self) -> Response:
        """All pictures at once; each is encoded while the next ones are still made."""
        encoded: dict[int, asyncio.Future[InlinePicture | LinkedPicture]] = {}
        warnings = dict.fromkeys(self._warnings)
        with self.api.job(self.request, self.http.receive, ("picture",)) as job:
            async for event in job:
                encoded[event.index] = self.api.in_pool(self._picture, event)
                warnings |= dict.fromkeys(self._told_by(event))
            pictures = (encoded[index] for index in range(self.request.num_images))
            data = await asyncio.gather(*pictures)
        content = await self.api.in_pool(self._whole, data, list(warnings))
        return Response(content, media_type="application/json")

    def _whole(self, data: list[InlinePicture | LinkedPicture], warnings: list[str]) -> str:
        answer = ImagesAnswer(
            created=int(time.time()),
            data=data,
            output_format=self.body.format,
            quality=self._quality,
            size=self._size,
            usage=self._usage(self.request.num_images),
            model=self.api.engine.pipeline.name,
            steps=self.request.path.steps,
            num_evaluations=self.api.engine.num_evaluations(self.request),
            policy=self.request.policy,
            guidance_scale=self.request.guidance,
            timing=self._timing(),
            warnings=warnings,
        )
        return answer.model_dump_json()

    async def events(
        self, receive: Receive
    ) -> AsyncGenerator[Progress | PartialImage | Completed | None, None]:
        """What a stream tells. None is said once the request is admitted, and when all is quiet.

        The first progress comes before all else, so that a client knows num_evaluations.
        """
        kinds = ["picture", "preview"] + ["progress"] * bool(self.body.progress)
        total = self.api.engine.num_evaluations(self.request)
        shown = [0] * self.request.num_images
        before, quiet = None, 0
        with self.api.job(self.request, receive, kinds) as job:
            yield None
            if self.body.progress:
                before = job.num_before
                yield _waiting(total, before)
            while True:
                queued = job.num_before if self.body.progress else None
                if queued not in (None, before):
                    before, quiet = queued, 0
                    yield _waiting(total, queued)
                event = await job.next(POLL_SECONDS)
                quiet = 0 if event else quiet + 1
                if event is None:
                    if quiet % QUIET_POLLS == 0:
                        yield None
                elif event.kind == "done":
                    return
                elif event.kind == "progress":
                    yield _progress(event)
                elif event.kind == "preview":
                    yield await self.api.in_pool(self._partial, event, shown[event.index])
                    shown[event.index] += 1
                else:
                    yield await self.api.in_pool(self._completed, event)

    @property
    def _size(self) -> str:
        return "{}x{}".format(*self.request.size)

    def _timing(self) -> Timing:
        return Timing(seconds=round(time.perf_counter() - self.started, 4))

    @property
    def _quality(self) -> Quality:
        """In OpenAI's words."""
        quality = self.request.quality
        return "high" if quality > MEDIUM else "medium" if quality > LOW else "low"

    @property
    def _warnings(self) -> list[str]:
        warnings = [*self.body.without_effect, *self.request.without_effect]
        if self.body.quality in QUALITIES and self.request.quality == 100:
            told = f"quality: {self.body.quality!r} has no effect; the model is not calibrated"
            warnings.append(told)
        return warnings

    def _told_by(self, event: Event) -> list[str]:
        """What a picture warns of; counted, so to be asked once of each."""
        if event.warning is None:
            return []
        self.api.metrics.without_effect()
        return [event.warning]

    def _usage(self, num_images: int) -> Usage:
        pipeline, request = self.api.engine.pipeline, self.request
        negative = request.negative_prompt if request.guided else ""
        texts = [text for text in (request.prompt, negative) if text]
        given = sum(len(pipeline.text.tokenize(text)) for text in texts)
        made = pipeline.num_tokens(request.size) * num_images
        return Usage(
            input_tokens=given,
            input_tokens_details=Tokens(text_tokens=given, image_tokens=0),
            output_tokens=made,
            output_tokens_details=Tokens(text_tokens=0, image_tokens=made),
            total_tokens=given + made,
        )

    def _encode(self, event: Event) -> bytes:
        parameters = self.api.engine.parameters(self.request, event.index)
        return encode_picture(_pixels(event), self.body.format, self._compression, parameters)

    @property
    def _compression(self) -> int:
        compression = self.body.output_compression
        return 100 if compression is None else compression

    def _picture(self, event: Event) -> InlinePicture | LinkedPicture:
        content, seed = self._encode(event), self.request.seed + event.index
        spent = _spent(event)
        if self.body.response_format == "url":
            name = self.api.files.put(content, self.body.format)
            url = str(self.http.base_url.replace(path=f"/files/{name}"))
            return LinkedPicture(url=url, seed=seed, **spent)
        return InlinePicture(b64_json=_base64(content), seed=seed, **spent)

    def _partial(self, event: Event, number: int) -> PartialImage:
        chosen = self.body.partial_format
        file_format = chosen or self.body.format
        compression = self._compression if chosen is None else PREVIEW_COMPRESSION
        return PartialImage(
            b64_json=_base64(encode_picture(_pixels(event), file_format, compression, None)),
            partial_image_index=number,
            created_at=int(time.time()),
            output_format=file_format,
            quality=self._quality,
            size=self._size,
            index=event.index,
            evaluation=event.evaluation,
            num_evaluations=event.num_evaluations,
            computed=event.actions[-1].compute,
            tiles=_tiles(event),
            active_tiles=_active_tiles(event),
        )

    def _completed(self, event: Event) -> Completed:
        return Completed(
            b64_json=_base64(self._encode(event)),
            created_at=int(time.time()),
            output_format=self.body.format,
            quality=self._quality,
            size=self._size,
            usage=self._usage(1),
            index=event.index,
            seed=self.request.seed + event.index,
            **_spent(event),
            num_evaluations=self.api.engine.num_evaluations(self.request),
            policy=self.request.policy,
            timing=self._timing(),
            warnings=[*self._warnings, *self._told_by(event)],
        )


def _waiting(total: int, before: int | None) -> Progress:
    return Progress(index=0, evaluation=0, num_evaluations=total, computed=0, waiting=before)


def _progress(event: Event) -> Progress:
    return Progress(
        index=event.index,
        evaluation=event.evaluation,
        num_evaluations=event.num_evaluations,
        computed=event.computed,
        cost=round(event.cost, 4),
        share=_share(event),
        tiles=_tiles(event),
        active_tiles=_active_tiles(event),
    )


def _spent(event: Event) -> dict[str, Any]:
    """The fields of `Spent`, of a picture."""
    return {
        "computed": event.computed,
        "cost": round(event.cost, 4),
        "share": _share(event),
        "tiles": _tiles(event),
        "tile_counts": list(event.tile_counts) if event.tiles else None,
    }


def _share(event: Event) -> float:
    return round(event.cost / event.num_evaluations, 4)


def _tiles(event: Event) -> list[int] | None:
    return list(event.tiles) if event.tiles else None


def _active_tiles(event: Event) -> list[int] | None:
    """Of the last evaluation that it tells of."""
    if event.tiles is None:
        return None
    action, (rows, columns) = event.actions[-1], event.tiles
    ran = action.compute and action.held is None
    return list(map(int, action.tiles or (ran,) * (rows * columns)))


def _check_media_type(http: Request) -> None:
    """Raises ApiError (415). A browser asks before it sends JSON to another origin, and so a page
    from elsewhere cannot make this machine draw.
    """
    given = http.headers.get("content-type")
    if given is None or given.partition(";")[0].strip().lower() != "application/json":
        error = InvalidInput("Content-Type", given, "application/json")
        raise ApiError(415, str(error), code="unsupported_media_type")


async def _read_body(http: Request, config: AppConfig) -> bytes:
    """Raises ApiError (408, 413), and ClientDisconnect."""
    limit, chunks, size = config.max_body_bytes, [], 0
    try:
        async with asyncio.timeout(config.body_seconds):
            async for chunk in http.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > READ_ON * limit:
                    break
    except TimeoutError:
        message = f"body: not complete after {config.body_seconds:g} s"
        headers = {"Connection": "close"}
        raise ApiError(408, message, code="request_timeout", headers=headers) from None
    if size > limit:
        message = f"body: got more than {limit} bytes; allowed: at most {limit} bytes"
        raise ApiError(413, message, code="body_too_large")
    return b"".join(chunks)


async def skip_body(http: Request, limit: int, seconds: float) -> None:
    """Read a body, up to a limit of bytes and of time, and keep nothing of it."""
    size = 0
    with suppress(ClientDisconnect, TimeoutError):
        async with asyncio.timeout(seconds):
            async for chunk in http.stream():
                size += len(chunk)
                if size > limit:
                    return


def _pixels(event: Event) -> np.ndarray:
    assert isinstance(event.picture, np.ndarray)
    return event.picture


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
