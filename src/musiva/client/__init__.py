"""A Musiva server from Python, blocking or for asyncio, without torch.

from musiva.client import Client

with Client("http://127.0.0.1:8400") as client:
    client.generate("a fox", size=(96, 96), seed=1)[0].save("fox.png")
"""

from __future__ import annotations

from musiva.client.async_client import AsyncClient
from musiva.client.client import Client
from musiva.client.jobs import AsyncJobs, Jobs
from musiva.client.jobs_told import (
    Estimate,
    Estimates,
    Job,
    JobEvent,
    JobPage,
    Standing,
    Worker,
    WorkerLink,
)
from musiva.client.options import EngineOptions, Options, options_from
from musiva.client.pictures import Completed, Event, Picture, Preview, Progress, Seconds
from musiva.client.remote import RemoteEngine, RemoteStream
from musiva.client.retry import Timeout
from musiva.client.wire import AsyncStream, Stream
from musiva.core.errors import Answer

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncJobs",
    "AsyncStream",
    "Client",
    "Completed",
    "EngineOptions",
    "Estimate",
    "Estimates",
    "Event",
    "Job",
    "JobEvent",
    "JobPage",
    "Jobs",
    "Options",
    "Picture",
    "Preview",
    "Progress",
    "RemoteEngine",
    "RemoteStream",
    "Seconds",
    "Standing",
    "Stream",
    "Timeout",
    "Worker",
    "WorkerLink",
    "options_from",
]
