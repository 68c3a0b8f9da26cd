"""What clients send, checked by its form; what it asks of the engine is `requests`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from musiva.core.errors import InvalidInput
from musiva.server.answers import FileFormat
from musiva.server.errors import ApiError

__all__ = ["ImagesBody", "JobBody", "PictureBody", "VideoBody", "parse_body"]

MAX_PROMPT = 32_000
MAX_PARTIAL_IMAGES = 100
MAX_STEPS = 1000
MAX_GUIDANCE = 100
MAX_SEED = 2**63 - 1
MAX_DEADLINE = 86_400
MAX_PRIORITY = 100
MAX_FRAMES = 100_000
MAX_FPS = 60
MAX_SECONDS = 3600
TEXT = f"a text of at most {MAX_PROMPT} characters"
Word = Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"]
WORDS = get_args(Word)
Latency = Literal["interactive", "standard", "relaxed", "batch"]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT)]
Previews = Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)]
# RFC 3339, section 5.6.
DATE_TIME = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
Instant = Annotated[str, Field(pattern=DATE_TIME)]
B = TypeVar("B", bound="PictureBody")


class PictureBody(BaseModel):
    """What a request for pictures may say: OpenAI's fields and ours; null is the same as absent.
    Descriptions say what is allowed.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    prompt: Prompt = Field(description=f"{TEXT}, not empty")
    model: str | None = Field(None, description="the name of a model, see /v1/models")
    n: Annotated[int, Field(ge=1)] | None = Field(None, description="a whole number of at least 1")
    size: Annotated[str, Field(pattern="^(auto|[0-9]{1,6}x[0-9]{1,6})$")] | None = Field(
        None, description='"auto" or "WIDTHxHEIGHT" in pixels'
    )
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = Field(
        None, description="a whole number that the model takes, see /v1/models"
    )
    fps: Annotated[float, Field(ge=1, le=MAX_FPS)] | None = Field(
        None, description=f"a number from 1 to {MAX_FPS}"
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
    max_quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="a whole number from min_quality to 100"
    )
    deadline: Annotated[float, Field(gt=0, le=MAX_DEADLINE)] | Instant | None = Field(
        None,
        description=f"seconds from now, above 0 and at most {MAX_DEADLINE}, or a date and time to "
        "come with its offset, such as 2030-01-31T12:00:00Z",
    )
    latency: Latency | None = Field(None, description=", ".join(get_args(Latency)))
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = Field(
        None, description=f"a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}"
    )
    tenant: str | None = Field(None, description="the name of a tenant of this server")
    background: Literal["auto", "opaque"] | None = Field(None, description="auto or opaque")
    moderation: Literal["auto", "low"] | None = Field(None, description="auto or low")
    style: Literal["vivid", "natural"] | None = Field(None, description="vivid or natural")
    complexity: Literal["low", "medium", "high"] | None = Field(
        None, description="low, medium or high"
    )
    user: str | None = Field(None, description="a text")
    safety_identifier: str | None = Field(None, description="a text")
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

    def format(self, frames: int) -> FileFormat:
        """Of a picture, or of a clip of so many frames."""
        return self.output_format or ("png" if frames == 1 else "webp")

    @property
    def num_previews(self) -> int:
        """The most that are wanted of each picture."""
        return 0

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


class ImagesBody(PictureBody):
    """Of `POST /v1/images/generations`, which may answer as a stream, and of estimates."""

    stream: bool | None = Field(None, description="true or false")
    partial_images: Previews | None = Field(
        None, description=f"a whole number from 0 to {MAX_PARTIAL_IMAGES}"
    )
    partial_format: FileFormat | None = Field(None, description="png, jpeg or webp")
    progress: bool | None = Field(None, description="true or false")

    @property
    def num_previews(self) -> int:
        return self.partial_images or 0


class JobBody(PictureBody):
    """Of `POST /v1/jobs`. previews: that its events may show."""

    previews: Previews | None = Field(
        None, description=f"a whole number from 0 to {MAX_PARTIAL_IMAGES}"
    )

    @property
    def num_previews(self) -> int:
        return self.previews or 0


class VideoBody(JobBody):
    """Of `POST /v1/videos`."""

    seconds: (
        Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,6})?$")]
        | Annotated[float, Field(gt=0, le=MAX_SECONDS)]
        | None
    ) = Field(
        None, description=f'a number above 0 and at most {MAX_SECONDS}, or a text such as "4"'
    )


def parse_body(kind: type[B], content: bytes, max_images: int) -> B:
    """Raises ApiError (400) naming all unknown fields, or the first field that does not fit."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    fields = kind.model_fields
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
