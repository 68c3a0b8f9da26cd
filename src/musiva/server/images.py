"""The body of `POST /v1/images/generations`, checked, and what it asks of the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from musiva.core.errors import InvalidInput, UnknownModel
from musiva.core.provenance import exif
from musiva.core.types import Request
from musiva.engine import Engine
from musiva.server.answers import FileFormat
from musiva.server.errors import ApiError

__all__ = ["ImagesBody", "parse_body", "to_request"]

MAX_PROMPT = 32_000
MAX_PARTIAL_IMAGES = 100
MAX_STEPS = 1000
MAX_GUIDANCE = 100
MAX_SEED = 2**63 - 1
TEXT = f"a text of at most {MAX_PROMPT} characters"
Word = Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"]
WORDS = get_args(Word)
# What of OpenAI's words is not the model's best; these need a calibrated model.
QUALITIES = {"low": 60, "medium": 80}
# The engine's words for what has another name in this API.
PUBLIC = {"guidance": "guidance_scale", "num_images": "n"}
Prompt = Annotated[str, Field(max_length=MAX_PROMPT)]


class ImagesBody(BaseModel):
    """OpenAI's fields and ours; null is the same as absent. Descriptions say what is allowed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    prompt: Prompt = Field(description=f"{TEXT}, not empty")
    model: str | None = Field(None, description="the name of a model, see /v1/models")
    n: Annotated[int, Field(ge=1)] | None = Field(None, description="a whole number of at least 1")
    size: Annotated[str, Field(pattern="^(auto|[0-9]{1,6}x[0-9]{1,6})$")] | None = Field(
        None, description='"auto" or "WIDTHxHEIGHT" in pixels'
    )
    response_format: Literal["b64_json", "url"] | None = Field(None, description="b64_json or url")
    output_format: FileFormat | None = Field(None, description="png, jpeg or webp")
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="a whole number from 0 to 100"
    )
    quality: Word | Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description=f"{', '.join(WORDS)} or a whole number from 1 to 100"
    )
    min_quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="a whole number from 1 to 100"
    )
    background: Literal["auto", "opaque"] | None = Field(None, description="auto or opaque")
    moderation: Literal["auto", "low"] | None = Field(None, description="auto or low")
    style: Literal["vivid", "natural"] | None = Field(None, description="vivid or natural")
    complexity: Literal["low", "medium", "high"] | None = Field(
        None, description="low, medium or high"
    )
    user: str | None = Field(None, description="a text")
    safety_identifier: str | None = Field(None, description="a text")
    stream: bool | None = Field(None, description="true or false")
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] | None = Field(
        None, description=f"a whole number from 0 to {MAX_PARTIAL_IMAGES}"
    )
    partial_format: FileFormat | None = Field(None, description="png, jpeg or webp")
    progress: bool | None = Field(None, description="true or false")
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = Field(
        None, description=f"a whole number from 0 to {MAX_SEED}"
    )
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = Field(
        None, description=f"a whole number from 1 to {MAX_STEPS}"
    )
    guidance_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] | None = Field(
        None, description=f"a number from 0 to {MAX_GUIDANCE}"
    )
    negative_prompt: Prompt | None = Field(None, description=TEXT)
    sampler: str | None = Field(None, description="the name of a sampler, see /v1/models")
    spacing: str | None = Field(None, description="the name of a spacing of the sampler")
    shift: Annotated[float, Field(ge=0.01, le=100)] | None = Field(
        None, description="a number from 0.01 to 100"
    )
    policy: str | None = Field(None, description="a policy and its fields, see /v1/models")

    @property
    def format(self) -> FileFormat:
        return self.output_format or "png"

    @property
    def without_effect(self) -> list[str]:
        """Fields that OpenAI's models read and that change nothing here; users are told."""
        warnings = []
        if self.style is not None:
            warnings.append("style: has no effect; describe the style in the prompt")
        if self.moderation is not None:
            warnings.append("moderation: has no effect; prompts are not moderated")
        if self.complexity is not None:
            warnings.append("complexity: has no effect; steps say how much is computed")
        return warnings


def parse_body(body: bytes, max_images: int) -> ImagesBody:
    """Raises ApiError (400) naming all unknown fields, or the first field that does not fit."""
    try:
        return ImagesBody.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    fields = ImagesBody.model_fields
    unknown = [str(p["loc"][0]) for p in problems if p["type"] == "extra_forbidden"]
    if unknown:
        message = f"{', '.join(unknown)}: no such field; known fields: {', '.join(fields)}"
        raise ApiError(400, message, code="unknown_parameter", param=unknown[0])
    first = problems[0]
    if first["type"] == "json_invalid":
        raise ApiError(
            400,
            f"body: malformed JSON: {first['msg'].removeprefix('Invalid JSON: ')}",
            code="invalid_json",
        )
    if not first["loc"]:
        error = InvalidInput("body", first["input"], "a JSON object")
        raise ApiError(400, str(error), code="invalid_type")
    name = str(first["loc"][0])
    allowed = fields[name].description or ""
    if name == "n":
        allowed = f"a whole number from 1 to {max_images}"
    if first["type"] == "missing":
        message = f"{name}: missing; allowed: {allowed}"
        raise ApiError(400, message, code="missing_required_parameter", param=name)
    raise ApiError(
        400,
        str(InvalidInput(name, first["input"], allowed)),
        code="invalid_type" if first["type"].endswith("_type") else "invalid_value",
        param=name,
    )


def to_request(engine: Engine, body: ImagesBody, request_id: str) -> Request:
    """The engine's request, of that id. Raises UnknownModel or InvalidInput, with the names of this
    API.
    """
    name = engine.pipeline.name
    if body.model not in (None, name):
        raise UnknownModel("model", body.model, name)
    _check_stream(body)
    if body.format == "png" and body.output_compression not in (None, 100):
        allowed = "100 with output_format png, which loses nothing; 0 to 100 with jpeg and webp"
        raise InvalidInput("output_compression", body.output_compression, allowed)
    try:
        request = engine.request(
            body.prompt,
            negative_prompt=body.negative_prompt,
            size=_size(body.size),
            steps=body.steps,
            seed=body.seed,
            guidance=body.guidance_scale,
            num_images=body.n,
            quality=_quality(engine, body),
            sampler=body.sampler,
            spacing=body.spacing,
            shift=body.shift,
            policy=body.policy,
            request_id=request_id,
        )
    except InvalidInput as error:
        field = PUBLIC.get(error.field, error.field)
        if field == "quality" and body.min_quality is not None:
            field = "min_quality"
        raise type(error)(field, error.value, error.allowed) from error
    if body.format != "png":
        exif(engine.parameters(request, request.num_images - 1))
    # OpenAI's number is the most that come: a picture may be done before.
    most = engine.num_evaluations(request) - 1
    return replace(request, previews=min(body.partial_images or 0, most))


def _quality(engine: Engine, body: ImagesBody) -> int:
    """As a number. Raises InvalidInput for a floor that is not the quality asked for."""
    asked = QUALITIES.get(body.quality, 100) if isinstance(body.quality, str) else body.quality
    if isinstance(body.quality, str) and engine.pipeline.calibration is None:
        asked = 100
    if body.min_quality is None:
        return 100 if asked is None else asked
    if asked not in (None, body.min_quality):
        raise InvalidInput("min_quality", body.min_quality, f"{asked}, as quality says, or absent")
    return body.min_quality


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
