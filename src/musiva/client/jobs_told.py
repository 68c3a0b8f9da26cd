"""What the client gives of jobs, and of how a server stands."""

from __future__ import annotations

from dataclasses import dataclass

from musiva.client.pictures import Preview, Progress
from musiva.core.errors import MusivaError

__all__ = [
    "Estimate",
    "Estimates",
    "Job",
    "JobEvent",
    "JobPage",
    "Standing",
    "Worker",
    "WorkerLink",
]

ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it was when the server told. status: "queued", "running", "succeeded", "failed" or
    "cancelled". created, started, ended, deadline: seconds since 1970. evaluation, num_evaluations:
    of all its pictures together; pictures: of them, those that are done. predicted_seconds: from
    its admission to its end. deadline_met: None without one, and until it is known. error: why it
    failed.
    """

    id: str
    status: str
    created: float
    started: float | None = None
    ended: float | None = None
    model: str
    tenant: str
    evaluation: int
    num_evaluations: int
    pictures: int
    num_pictures: int
    predicted_seconds: float | None = None
    deadline: float | None = None
    deadline_met: bool | None = None
    error: MusivaError | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


# A `Job` comes first, when it begins to run, and at the end.
JobEvent = Job | Progress | Preview


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """The newest first. has_more: whether there are older ones, which come `after` the last."""

    jobs: tuple[Job, ...]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """waiting, running: requests. backlog: seconds of work, as exactly as it is done now;
    backlog_floor: with all at their floors. goodput: pictures a second, of the last minute, that
    were on time; attainment: their share of all that ended or was refused then, None if there was
    none. refused: requests of that minute. quality: mean of what is used now, None if nothing runs.
    """

    waiting: int
    running: int
    backlog: float
    backlog_floor: float
    goodput: float
    attainment: float | None
    refused: int
    quality: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLink:
    """kind: "server", to the one that was asked; "ranks", between those of the worker, seen from
    the first; "host", to another one that has pages. other: what is at the other end. transfers:
    messages, exchanges, or pages. seconds: that were waited for them. latency: seconds that
    something small takes, and bytes_per_second of what is large, by what was seen lately; None
    where that is not known.
    """

    kind: str
    other: str
    sent_bytes: int
    received_bytes: int
    transfers: int
    seconds: float
    latency: float | None
    bytes_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of a server's. number: its place, from 0. phase: "starting", "ready", "draining" or
    "gone". pid: of its process. life: which of the workers that had its place, from 1. requests:
    that it has; waiting: those of them that have not begun. work: seconds that are left of it, as
    dense runs. steps: that it has made. store_bytes: of the pages that it keeps. found, not_found:
    pages of the cluster that it asked for. host: the machine that it is on, once it is known.
    links: what it sends, and to whom.
    """

    number: int
    phase: str
    pid: int | None
    life: int
    requests: int
    waiting: int
    work: float
    steps: int
    store_bytes: int
    found: int
    not_found: int
    host: str | None
    links: tuple[WorkerLink, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a request would get that came now. quality: promised. finish: seconds until its pictures
    should be there. work: seconds that it takes itself. refusal: why it would be refused, or None.
    """

    quality: int
    finish: float
    work: float
    refusal: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """With each of the request's qualities as its floor, the most exact first. deadline: of the
    request, in seconds from now.
    """

    deadline: float | None
    estimates: tuple[Estimate, ...]
