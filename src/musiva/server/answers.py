"""What goes out, in OpenAI's words and ours; the published schema is made of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BACKGROUND",
    "ActiveTiles",
    "Answer",
    "Completed",
    "Count",
    "Elapsed",
    "ErrorAnswer",
    "ErrorDetail",
    "ErrorEvent",
    "FileFormat",
    "Health",
    "ImagesAnswer",
    "InlinePicture",
    "LinkedPicture",
    "Model",
    "ModelList",
    "Number",
    "PartialImage",
    "Predicted",
    "Progress",
    "Progressed",
    "Quality",
    "RefusedDetail",
    "Seconds",
    "Size",
    "Tiles",
    "Timing",
    "Tokens",
    "Usage",
]

FileFormat = Literal["png", "jpeg", "webp"]
BACKGROUND = "opaque"
Quality = Literal["low", "medium", "high"]
Count = Annotated[int, Field(ge=0)]
Computed = Annotated[int, Field(ge=0, description="evaluations that were computed in full of it")]
Cost = Annotated[
    float, Field(ge=0, description="full evaluations that all that was computed of it is worth")
]
Share = Annotated[float, Field(ge=0, le=1, description="cost over the evaluations of a dense run")]
Tiles = Annotated[
    Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] | None,
    Field(description="[rows, columns]; null where the policy has none"),
]
TileCounts = Annotated[
    list[Count] | None, Field(description="evaluations that computed each tile, row by row")
]
ActiveTiles = Annotated[
    list[Annotated[int, Field(ge=0, le=1)]] | None,
    Field(description="1 for each tile that `evaluation` computed, row by row; null as `tiles`"),
]
Seed = Annotated[int, Field(ge=0, description="that makes this picture alone")]
Policy = Annotated[str, Field(description="what chose which evaluations are computed")]
Number = Annotated[int, Field(ge=1, le=100, description="1 to 100; 100 is the dense run")]
Elapsed = Annotated[float, Field(ge=0)]
Predicted = Annotated[
    Elapsed | None,
    Field(
        description="seconds from its admission to its last picture, if all keep to their floors"
    ),
]
Size = Annotated[str, Field(pattern="^[0-9]+x[0-9]+$", description="WIDTHxHEIGHT in pixels")]


class Answer(BaseModel):
    # What has a default is always sent too.
    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )


class Tokens(Answer):
    """By kind."""

    text_tokens: Count
    image_tokens: Count


class Usage(Answer):
    """input: of the prompt and, with guidance, of the negative prompt, as the text encoder counts
    them. output: image tokens, the unit of compute.
    """

    input_tokens: Count
    input_tokens_details: Tokens
    output_tokens: Count
    output_tokens_details: Tokens
    total_tokens: Count


class Timing(Answer):
    seconds: Annotated[float, Field(ge=0, description="since the request came")]


class Seconds(Answer):
    """Of a picture, from its admission. encode, denoise, decode: of the steps in which it took
    part, beside others; queue: all else.
    """

    queue: Elapsed
    encode: Elapsed
    denoise: Elapsed
    decode: Elapsed
    total: Elapsed


class Spent(Answer):
    """What was computed of a picture, and how it fared."""

    computed: Computed
    cost: Cost
    share: Share
    tiles: Tiles
    tile_counts: TileCounts
    quality_promised: Annotated[Number, Field(description="that it keeps at least")]
    quality_used: Annotated[Number, Field(description="the lowest that was used")]
    deadline_met: Annotated[bool | None, Field(description="null without a deadline")]
    reused: Annotated[int, Field(ge=0, description="evaluations that had been computed before")]
    seconds: Seconds


class InlinePicture(Spent):
    b64_json: str
    seed: Seed


class LinkedPicture(Spent):
    url: Annotated[str, Field(description="gone when newer pictures need its room")]
    seed: Seed


class ImagesAnswer(Answer):
    created: int
    data: list[InlinePicture | LinkedPicture]
    background: Literal["opaque"] = BACKGROUND
    output_format: FileFormat
    quality: Quality
    size: Size
    usage: Usage
    model: str
    steps: int
    num_evaluations: Annotated[int, Field(ge=1, description="of the dense run of a picture")]
    policy: Policy
    guidance_scale: float
    timing: Timing
    warnings: Annotated[list[str], Field(description="fields that had no effect")]


class PartialImage(Answer):
    """What the solver takes the picture for, so far."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    b64_json: str
    partial_image_index: Annotated[Count, Field(description="counts those sent of this picture")]
    created_at: int
    background: Literal["opaque"] = BACKGROUND
    output_format: FileFormat
    quality: Quality
    size: Size
    index: Annotated[Count, Field(description="which picture of n")]
    evaluation: Annotated[int, Field(ge=1, description="model evaluations done")]
    num_evaluations: Annotated[int, Field(ge=1)]
    computed: Annotated[bool, Field(description="whether the model ran at `evaluation`")]
    tiles: Tiles
    active_tiles: ActiveTiles


class Completed(Spent):
    """A finished picture; there is one such event for each of n."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    b64_json: str
    created_at: int
    background: Literal["opaque"] = BACKGROUND
    output_format: FileFormat
    quality: Quality
    size: Size
    usage: Usage
    index: Annotated[Count, Field(description="which picture of n")]
    seed: Seed
    num_evaluations: Annotated[int, Field(ge=1, description="of the dense run")]
    policy: Policy
    timing: Timing
    warnings: Annotated[list[str], Field(description="fields that had no effect")]


class Progressed(Answer):
    """How far a picture is."""

    index: Annotated[Count, Field(description="which picture of n")]
    evaluation: Annotated[Count, Field(description="model evaluations done")]
    num_evaluations: Annotated[int, Field(ge=1)]
    computed: Computed
    cost: Cost = 0.0
    share: Share = 0.0
    tiles: Tiles = None
    active_tiles: ActiveTiles = None
    quality: Annotated[Number | None, Field(description="in use; null until it runs")] = None


class Progress(Progressed):
    """Sent when `progress` is true. predicted_seconds: told once, by the first one."""

    type: Literal["image_generation.progress"] = "image_generation.progress"
    waiting: Annotated[
        Count | None, Field(description="requests before it in the queue; null once it runs")
    ] = None
    predicted_seconds: Predicted = None


class ErrorDetail(Answer):
    message: Annotated[str, Field(min_length=1)]
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: Annotated[str | None, Field(description="the field of the body that it is about")] = None
    code: str


class RefusedDetail(ErrorDetail):
    """Of a 429 of which more is known than that the queue is full."""

    predicted_seconds: Annotated[
        float, Field(ge=0, description="until the pictures would have been there")
    ]
    retry_seconds: Annotated[float, Field(ge=0, description="after which it should be possible")]


class ErrorAnswer(Answer):
    error: ErrorDetail | RefusedDetail


class ErrorEvent(Answer):
    """Ends a stream."""

    type: Literal["error"] = "error"
    error: ErrorDetail


class Model(Answer):
    """OpenAI's model object, and beside it the model's defaults and limits."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["musiva"] = "musiva"
    size: Size
    sizes: Annotated[list[Size], Field(description="to offer; the default first")]
    size_multiple: int
    min_side: int
    max_side: int
    max_images: int
    frames: Annotated[int, Field(description="of a clip by default; 1 is a picture")]
    min_frames: int
    max_frames: int
    frame_step: Annotated[int, Field(description="between two counts that are allowed")]
    fps: Annotated[float | None, Field(description="by default; null for pictures")]
    steps: int
    max_steps: int
    guidance_scale: float
    max_guidance_scale: float
    max_partial_images: int
    sampler: str
    samplers: list[str]
    spacings: Annotated[dict[str, list[str]], Field(description="by sampler")]
    shift: Annotated[float | None, Field(description="null where there is none")]
    policies: Annotated[list[str], Field(description="names that a policy may begin with")]
    calibrated: Annotated[bool, Field(description="qualities below 100 may be asked for")]
    reach: Annotated[
        list[str],
        Field(
            description="out of packs (requests of any sizes share a forward), batches (those of "
            "one size do), tiles (some are enough), gates (what a part of the model adds can be "
            "held), evaluations (whole ones can be held or forecast)"
        ),
    ]
    out_of_reach: Annotated[str | None, Field(description="why not more; null where nothing lacks")]
    latencies: Annotated[list[str], Field(description="names that stand for a deadline")]


class ModelList(Answer):
    object: Literal["list"] = "list"
    data: list[Model]


class Health(Answer):
    """instance: another one after each start of the server."""

    status: Literal["ok"] = "ok"
    model: str
    waiting: Count
    running: Count
    instance: str
    version: str
