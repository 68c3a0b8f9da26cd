"""What a checked body asks of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from musiva.core.errors import InvalidInput, UnknownModel
from musiva.core.provenance import exif
from musiva.core.types import Request
from musiva.engine import Front
from musiva.server.bodies import MAX_DEADLINE, ImagesBody, PictureBody

__all__ = ["QUALITIES", "to_request", "without_effect"]

# What of OpenAI's words is not the model's best; these need a calibrated model.
QUALITIES = {"low": 60, "medium": 80}
# The engine's words for what has another name in this API.
PUBLIC = {"guidance": "guidance_scale", "num_images": "n"}
# Schedulers that look at neither deadlines nor priorities, and the one that changes levels.
BLIND = ("fifo", "shortest", "static")
CHOOSES_LEVELS = "goodput"


def to_request(
    engine: Front,
    body: PictureBody,
    request_id: str,
    tenant: str,
    clock: Callable[[], float],
) -> Request:
    """The engine's request, of that id and tenant. clock: seconds since 1970.

    Raises UnknownModel or InvalidInput, with the names of this API.
    """
    name = engine.pipeline.name
    if body.model not in (None, name):
        raise UnknownModel("model", body.model, name)
    if isinstance(body, ImagesBody):
        _check_stream(body)
    try:
        request = engine.request(
            body.prompt,
            negative_prompt=body.negative_prompt,
            size=_size(body.size),
            frames=body.frames,
            fps=body.fps,
            steps=body.steps,
            seed=body.seed,
            guidance=body.guidance_scale,
            num_images=body.n,
            quality=_quality(engine, body),
            min_quality=body.min_quality,
            max_quality=body.max_quality,
            sampler=body.sampler,
            spacing=body.spacing,
            shift=body.shift,
            policy=body.policy,
            deadline=_seconds_to(body.deadline, clock),
            latency=body.latency,
            priority=body.priority or 0,
            tenant=tenant,
            request_id=request_id,
        )
    except InvalidInput as error:
        field = PUBLIC.get(error.field, error.field)
        if field == "quality" and body.min_quality is not None:
            field = "min_quality"
        raise type(error)(field, error.value, error.allowed) from error
    _check_format(body, request)
    if body.format(request.frames) != "png":
        exif(engine.parameters(request, request.num_images - 1))
    # OpenAI's number is the most that come: a picture may be done before.
    most = engine.num_evaluations(request) - 1
    return replace(request, previews=min(body.num_previews, most))


def without_effect(engine: Front, body: PictureBody, request: Request) -> list[str]:
    """What a body asks for and changes nothing, as "FIELD: why"; users are told."""
    return [*body.without_effect, *request.without_effect, *_idle(engine, body, request)]


def _idle(engine: Front, body: PictureBody, request: Request) -> Iterator[str]:
    scheduler = engine.config.scheduler.discipline
    if body.fps is not None and request.frames == 1:
        yield "fps: has no effect on a picture"
    if body.quality in QUALITIES and request.min_quality == 100:
        yield f"quality: {body.quality!r} has no effect; the model is not calibrated"
    if body.max_quality is not None and len(request.levels) == 1:
        why = "the model is not calibrated"
        if engine.pipeline.calibration is not None:
            why = "there is nothing between it and min_quality"
        yield f"max_quality: has no effect; {why}"
    if len(request.levels) > 1 and scheduler != CHOOSES_LEVELS:
        yield f"min_quality: has no effect; the scheduler {scheduler!r} uses max_quality"
    if scheduler in BLIND:
        timed = "deadline" if body.deadline is not None else "latency"
        if request.deadline is not None:
            yield f"{timed}: is told of, but has no effect; the scheduler is {scheduler!r}"
        if body.priority:
            yield f"priority: has no effect; the scheduler is {scheduler!r}"


def _quality(engine: Front, body: PictureBody) -> int | None:
    """As a number; None where nothing, or a floor alone, is said."""
    if not isinstance(body.quality, str):
        return body.quality
    if body.quality == "auto" and body.min_quality is not None:
        return None
    if engine.pipeline.calibration is None:
        return 100
    return QUALITIES.get(body.quality, 100)


def _seconds_to(deadline: float | str | None, clock: Callable[[], float]) -> float | None:
    """From now. Raises InvalidInput for a time that never was, is past, or is too far off."""
    if not isinstance(deadline, str):
        return deadline
    try:
        # Python reads these in capitals alone.
        seconds = datetime.fromisoformat(deadline.upper()).timestamp() - clock()
    except (ValueError, OverflowError) as error:
        allowed = "a date and time that there is"
        raise InvalidInput("deadline", deadline, allowed) from error
    if seconds <= 0:
        allowed = f"a time to come; this is {abs(seconds):.0f} s in the past"
        raise InvalidInput("deadline", deadline, allowed)
    if seconds > MAX_DEADLINE:
        raise InvalidInput("deadline", deadline, f"a time within {MAX_DEADLINE} s from now")
    return seconds


def _check_format(body: PictureBody, request: Request) -> None:
    if request.frames > 1 and body.output_format == "jpeg":
        raise InvalidInput("output_format", "jpeg", "webp or png, of a clip")
    if body.format(request.frames) == "png" and body.output_compression not in (None, 100):
        allowed = "100 with output_format png, which loses nothing; 0 to 100 with jpeg and webp"
        raise InvalidInput("output_compression", body.output_compression, allowed)


def _check_stream(body: ImagesBody) -> None:
    if body.stream and body.response_format == "url":
        raise InvalidInput("response_format", "url", "b64_json with stream true")
    nothing = {"partial_images": "0", "partial_format": "null", "progress": "false"}
    for field, absent in nothing.items():
        value = getattr(body, field)
        if value and not body.stream:
            raise InvalidInput(field, value, f"{absent} without stream true")


def _size(size: str | None) -> tuple[int, int] | None:
    if size in (None, "auto"):
        return None
    width, height = size.split("x")
    return int(width), int(height)
