"""`POST /v1/images/generations`: from a body to an answer, or to a stream of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive

from musiva.server.answers import (
    Completed,
    InlinePicture,
    LinkedPicture,
    PartialImage,
    Progress,
)
from musiva.server.bodies import ImagesBody
from musiva.server.drawing import Drawing, progressed
from musiva.server.requests import to_request
from musiva.server.shared import Shared
from musiva.server.stream import EventStream

__all__ = ["generate"]

# How often a stream looks whether its request has moved up in the queue, and how many times it
# finds nothing to tell before it says so.
POLL_SECONDS = 0.5
QUIET_POLLS = 30


async def generate(shared: Shared, http: Request) -> Response:
    """Raises ApiError, and what the engine refuses or the request fails of; Cancelled when its
    client leaves.
    """
    started = time.perf_counter()
    body, tenant = await shared.read(http, ImagesBody)
    asked = (shared.engine, body, http.state.request_id, tenant, shared.clock)
    request = await shared.in_pool(to_request, *asked)
    generation = Generation(shared, body, Drawing(shared, body, request, started, http.base_url))
    if not body.stream:
        return await generation.answer(http.receive)
    return EventStream(
        generation.events,
        request.id,
        left=shared.metrics.cancelled,
        stall_seconds=shared.config.stall_seconds,
    )


@dataclass(frozen=True, slots=True)
class Generation:
    shared: Shared
    body: ImagesBody
    drawing: Drawing

    async def answer(self, receive: Receive) -> Response:
        """All pictures at once; each is encoded while the next ones are still made."""
        encoded: dict[int, asyncio.Future[InlinePicture | LinkedPicture]] = {}
        drawing, in_pool = self.drawing, self.shared.in_pool
        warnings = dict.fromkeys(drawing.warnings)
        with self.shared.submitted(drawing.request, receive, ("picture",)) as submitted:
            async for event in submitted:
                encoded[event.index] = in_pool(drawing.picture, event)
                warnings |= dict.fromkeys(drawing.told_by(event))
            pictures = (encoded[index] for index in range(drawing.request.num_images))
            data = await asyncio.gather(*pictures)
        content = await in_pool(drawing.answer, data, list(warnings))
        return Response(content, media_type="application/json")

    async def events(
        self, receive: Receive
    ) -> AsyncGenerator[Progress | PartialImage | Completed | None, None]:
        """What a stream tells. None is said once the request is admitted, and when all is quiet.

        The first progress comes before all else, so that a client knows num_evaluations.
        """
        drawing, in_pool = self.drawing, self.shared.in_pool
        kinds = ["admitted", "picture", "preview"] + ["progress"] * bool(self.body.progress)
        seen = [0] * drawing.request.num_images
        before, quiet = None, 0
        with self.shared.submitted(drawing.request, receive, kinds) as submitted:
            predicted = await submitted.admitted()
            yield None
            if self.body.progress:
                before = submitted.num_before
                yield drawing.waiting(before, predicted)
            while True:
                queued = submitted.num_before if self.body.progress else None
                if queued not in (None, before):
                    before, quiet = queued, 0
                    yield drawing.waiting(queued, None)
                event = await submitted.next(POLL_SECONDS)
                quiet = 0 if event else quiet + 1
                if event is None:
                    if quiet % QUIET_POLLS == 0:
                        yield None
                elif event.kind == "done":
                    return
                elif event.kind == "progress":
                    yield Progress(**progressed(event))
                elif event.kind == "preview":
                    shown = (event, seen[event.index], self.body.partial_format)
                    yield await in_pool(drawing.partial, *shown)
                    seen[event.index] += 1
                else:
                    yield await in_pool(drawing.completed, event)
