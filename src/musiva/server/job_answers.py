"""What goes out about jobs, and about how the engine stands."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from musiva.server.answers import (
    ActiveTiles,
    Answer,
    Count,
    Elapsed,
    ErrorDetail,
    FileFormat,
    Number,
    Predicted,
    Progressed,
    Size,
    Tiles,
)

__all__ = [
    "ENDED",
    "STATUSES",
    "ClusterAnswer",
    "EstimateAnswer",
    "EstimatesAnswer",
    "Job",
    "JobCancelled",
    "JobCompleted",
    "JobFailed",
    "JobList",
    "JobPreview",
    "JobProgress",
    "JobProgressed",
    "JobStatus",
    "StandingAnswer",
    "Status",
    "Video",
    "VideoDeleted",
    "VideoStatus",
    "WorkerAnswer",
]

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = get_args(Status)
ENDED: tuple[Status, ...] = ("succeeded", "failed", "cancelled")
VideoStatus = Literal["queued", "in_progress", "completed", "failed"]
Time = Annotated[float, Field(description="seconds since 1970")]


class JobProgressed(Answer):
    """Of all pictures of a job together."""

    evaluation: Annotated[Count, Field(description="model evaluations done")]
    num_evaluations: Annotated[int, Field(ge=1)]
    pictures: Annotated[Count, Field(description="that are done")]
    num_pictures: Annotated[int, Field(ge=1)]


class Job(Answer):
    """created: when it was asked for. started: when it first ran. deadline: until when it was asked
    for.
    """

    id: str
    object: Literal["job"] = "job"
    status: Status
    created: Time
    started: Time | None
    ended: Time | None
    model: str
    tenant: str
    progress: JobProgressed
    predicted_seconds: Predicted
    deadline: Time | None
    deadline_met: Annotated[bool | None, Field(description="null without one, and until known")]
    error: Annotated[ErrorDetail | None, Field(description="why it failed")]


class JobList(Answer):
    """The newest first."""

    object: Literal["list"] = "list"
    data: list[Job]
    has_more: Annotated[bool, Field(description="whether there are older ones")]


class Video(Answer):
    """A job, in OpenAI's words; ours are frames and fps."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: VideoStatus
    progress: Annotated[int, Field(ge=0, le=100)]
    created_at: int
    completed_at: int | None
    expires_at: Annotated[int | None, Field(description="when it is forgotten; null until it ends")]
    size: Size
    seconds: str
    frames: Annotated[int, Field(ge=1)]
    fps: float
    error: Annotated[ErrorDetail | None, Field(description="why it failed")]


class VideoDeleted(Answer):
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class JobStatus(Answer):
    """Comes first, and when the job begins to run."""

    type: Literal["job.status"] = "job.status"
    job: Job


class JobProgress(Progressed):
    type: Literal["job.progress"] = "job.progress"


class JobPreview(Answer):
    """What the solver takes a picture for, so far."""

    type: Literal["job.preview"] = "job.preview"
    b64_json: str
    output_format: FileFormat
    size: Size
    index: Annotated[Count, Field(description="which picture of n")]
    evaluation: Annotated[int, Field(ge=1, description="model evaluations done")]
    num_evaluations: Annotated[int, Field(ge=1)]
    computed: Annotated[bool, Field(description="whether the model ran at `evaluation`")]
    tiles: Tiles
    active_tiles: ActiveTiles


class JobCompleted(Answer):
    """Ends the events of a job; its result is there."""

    type: Literal["job.completed"] = "job.completed"
    job: Job


class JobFailed(Answer):
    """Ends the events of a job."""

    type: Literal["job.failed"] = "job.failed"
    job: Job


class JobCancelled(Answer):
    """Ends the events of a job."""

    type: Literal["job.cancelled"] = "job.cancelled"
    job: Job


class StandingAnswer(Answer):
    """waiting, running: requests. goodput, attainment, refused: of the last minute."""

    waiting: Count
    running: Count
    backlog_seconds: Annotated[Elapsed, Field(description="of work, as exactly as it is done now")]
    backlog_floor_seconds: Annotated[Elapsed, Field(description="with all at their floors")]
    goodput: Annotated[Elapsed, Field(description="pictures a second that were on time")]
    attainment: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="their share of all that ended or was refused; null if there was none"),
    ]
    refused: Annotated[Count, Field(description="requests, but for those that met a full queue")]
    quality: Annotated[
        Annotated[float, Field(ge=1, le=100)] | None,
        Field(description="the mean of what is used now; null if nothing runs"),
    ]


class LinkAnswer(Answer):
    kind: Annotated[
        Literal["server", "ranks", "host"],
        Field(description="to this server, between its ranks, or to another host that has pages"),
    ]
    other: Annotated[str, Field(description="what is at the other end")]
    sent_bytes: Count
    received_bytes: Count
    transfers: Annotated[Count, Field(description="messages, exchanges, or pages")]
    seconds: Annotated[Elapsed, Field(description="that it has waited for them")]
    latency: Annotated[
        Elapsed | None, Field(description="seconds of something small; null if it is not known")
    ]
    bytes_per_second: Annotated[
        Elapsed | None, Field(description="of what is large; null if it is not known")
    ]


class WorkerAnswer(Answer):
    worker: Annotated[Count, Field(description="its place, from 0")]
    phase: Literal["starting", "ready", "draining", "gone"]
    pid: Annotated[int | None, Field(description="of its process; null where it has none")]
    life: Annotated[Count, Field(description="which of the workers that had its place, from 1")]
    requests: Annotated[Count, Field(description="that it has")]
    waiting: Annotated[Count, Field(description="those of them that have not begun")]
    work_seconds: Annotated[Elapsed, Field(description="that are left, as dense runs")]
    steps: Annotated[Count, Field(description="that it has made")]
    store_bytes: Annotated[Count, Field(description="of the pages that it keeps")]
    found: Annotated[Count, Field(description="pages of the cluster that it asked for")]
    not_found: Annotated[Count, Field(description="those that nobody had, or not soon enough")]
    host: Annotated[str | None, Field(description="the machine that it is on, once it is known")]
    links: Annotated[list[LinkAnswer], Field(description="what it sends, and to whom")]


class ClusterAnswer(Answer):
    """Of a server without workers none."""

    workers: list[WorkerAnswer]


class EstimateAnswer(Answer):
    quality: Annotated[Number, Field(description="promised")]
    finish_seconds: Annotated[Elapsed, Field(description="until its pictures should be there")]
    work_seconds: Annotated[Elapsed, Field(description="that it takes itself")]
    refusal: Annotated[str | None, Field(description="why it would be refused")]


class EstimatesAnswer(Answer):
    """What a request would get that came now, with each of its qualities as its floor, the most
    exact first.
    """

    deadline: Annotated[Elapsed | None, Field(description="seconds from now")]
    estimates: list[EstimateAnswer]
