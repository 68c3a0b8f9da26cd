"""What is told of one request: its pictures, its previews, and how far it is."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.datastructures import URL

from musiva.core.clip import COMPRESSION
from musiva.core.types import Event
from musiva.core.types import Request as EngineRequest
from musiva.server.answers import (
    Completed,
    FileFormat,
    ImagesAnswer,
    InlinePicture,
    LinkedPicture,
    PartialImage,
    Progress,
    Quality,
    Seconds,
    Timing,
    Tokens,
    Usage,
)
from musiva.server.bodies import PictureBody
from musiva.server.pictures import encode_picture
from musiva.server.requests import without_effect
from musiva.server.shared import Shared

__all__ = ["PREVIEW_COMPRESSION", "Drawing", "active_tiles", "progressed", "shown"]

# Of previews in a format of their own, which says that speed matters.
PREVIEW_COMPRESSION = 90
# The highest qualities that OpenAI's words "low" and "medium" stand for.
LOW, MEDIUM = 69, 89


@dataclass(frozen=True, slots=True)
class Drawing:
    """One checked request. started: seconds of `time.perf_counter` when it came. base_url: where it
    came, for links. Its methods take milliseconds, and may be called in any thread.
    """

    shared: Shared
    body: PictureBody
    request: EngineRequest
    started: float
    base_url: URL

    @property
    def num_evaluations(self) -> int:
        """Of each picture."""
        return self.shared.engine.num_evaluations(self.request)

    @property
    def warnings(self) -> list[str]:
        return without_effect(self.shared.engine, self.body, self.request)

    def told_by(self, event: Event) -> list[str]:
        """What a picture warns of; it is counted, so to be asked once of each."""
        if event.report is not None:
            self.shared.metrics.fared(event.report.deadline_met, event.report.used)
        if event.warning is None:
            return []
        self.shared.metrics.without_effect()
        return [event.warning]

    def picture(self, event: Event) -> InlinePicture | LinkedPicture:
        """As an answer has it."""
        content, seed = self._encode(event), self.request.seed + event.index
        spent = _spent(event)
        if self.body.response_format == "url":
            name = self.shared.files.put(content, self._format)
            url = str(self.base_url.replace(path=f"/files/{name}"))
            return LinkedPicture(url=url, seed=seed, **spent)
        return InlinePicture(b64_json=_base64(content), seed=seed, **spent)

    def answer(self, data: list[InlinePicture | LinkedPicture], warnings: list[str]) -> bytes:
        """The whole answer, as JSON."""
        answer = ImagesAnswer(
            created=int(time.time()),
            data=data,
            output_format=self._format,
            quality=self._quality,
            size=self._size,
            usage=self._usage(self.request.num_images),
            model=self.shared.engine.pipeline.name,
            steps=self.request.path.steps,
            num_evaluations=self.num_evaluations,
            policy=self.request.policy,
            guidance_scale=self.request.guidance,
            timing=self._timing(),
            warnings=warnings,
        )
        return answer.model_dump_json().encode()

    def partial(self, event: Event, number: int, chosen: FileFormat | None) -> PartialImage:
        """chosen: the format of previews, None for that of the picture."""
        file_format = chosen or self._format
        compression = self._compression if chosen is None else PREVIEW_COMPRESSION
        return PartialImage(
            b64_json=shown(event, file_format, compression),
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
            active_tiles=active_tiles(event),
        )

    def completed(self, event: Event) -> Completed:
        return Completed(
            b64_json=_base64(self._encode(event)),
            created_at=int(time.time()),
            output_format=self._format,
            quality=self._quality,
            size=self._size,
            usage=self._usage(1),
            index=event.index,
            seed=self.request.seed + event.index,
            **_spent(event),
            num_evaluations=self.num_evaluations,
            policy=self.request.policy,
            timing=self._timing(),
            warnings=[*self.warnings, *self.told_by(event)],
        )

    def waiting(self, before: int | None, predicted: float | None) -> Progress:
        """Before anything is computed. before: requests in the queue."""
        return Progress(
            index=0,
            evaluation=0,
            num_evaluations=self.num_evaluations,
            computed=0,
            waiting=before,
            predicted_seconds=None if predicted is None else round(predicted, 4),
        )

    @property
    def _size(self) -> str:
        return "{}x{}".format(*self.request.size)

    def _timing(self) -> Timing:
        return Timing(seconds=round(time.perf_counter() - self.started, 4))

    @property
    def _quality(self) -> Quality:
        """In OpenAI's words."""
        quality = self.request.min_quality
        return "high" if quality > MEDIUM else "medium" if quality > LOW else "low"

    @property
    def _format(self) -> FileFormat:
        return self.body.format(self.request.frames)

    @property
    def _compression(self) -> int:
        compression = self.body.output_compression
        if compression is None:
            return 100 if self.request.frames == 1 else COMPRESSION
        return compression

    def _usage(self, num_images: int) -> Usage:
        pipeline, request = self.shared.engine.pipeline, self.request
        negative = request.negative_prompt if request.guided else ""
        texts = [text for text in (request.prompt, negative) if text]
        given = sum(len(pipeline.text.tokenize(text)) for text in texts)
        made = pipeline.num_tokens(request.size, request.frames) * num_images
        return Usage(
            input_tokens=given,
            input_tokens_details=Tokens(text_tokens=given, image_tokens=0),
            output_tokens=made,
            output_tokens_details=Tokens(text_tokens=0, image_tokens=made),
            total_tokens=given + made,
        )

    def _encode(self, event: Event) -> bytes:
        parameters = self.shared.engine.parameters(self.request, event.index, event.actions)
        known = self._compression, parameters, self.request.fps
        return encode_picture(_pixels(event), self._format, *known)


def shown(event: Event, file_format: FileFormat, compression: int) -> str:
    """A preview as a file, in base64."""
    return _base64(encode_picture(_pixels(event), file_format, compression, None))


def progressed(event: Event) -> dict[str, Any]:
    """The fields of `Progressed`."""
    return {
        "index": event.index,
        "evaluation": event.evaluation,
        "num_evaluations": event.num_evaluations,
        "computed": event.computed,
        "cost": round(event.cost, 4),
        "share": _share(event),
        "tiles": _tiles(event),
        "active_tiles": active_tiles(event),
        "quality": event.quality,
    }


def active_tiles(event: Event) -> list[int] | None:
    """Of the last evaluation that it tells of."""
    if event.tiles is None:
        return None
    action, (rows, columns) = event.actions[-1], event.tiles
    ran = action.compute and action.held is None
    return list(map(int, action.tiles or (ran,) * (rows * columns)))


def _spent(event: Event) -> dict[str, Any]:
    """The fields of `Spent`, of a picture."""
    report = event.report
    assert report is not None
    seconds = {
        "queue": report.waited,
        "encode": report.encode,
        "denoise": report.denoise,
        "decode": report.decode,
        "total": report.seconds,
    }
    return {
        "computed": event.computed,
        "cost": round(event.cost, 4),
        "share": _share(event),
        "tiles": _tiles(event),
        "tile_counts": list(event.tile_counts) if event.tiles else None,
        "quality_promised": report.promised,
        "quality_used": report.used,
        "deadline_met": report.deadline_met,
        "reused": report.reused,
        "seconds": Seconds(**{name: round(value, 4) for name, value in seconds.items()}),
    }


def _share(event: Event) -> float:
    return round(event.cost / event.num_evaluations, 4)


def _tiles(event: Event) -> list[int] | None:
    return list(event.tiles) if event.tiles else None


def _pixels(event: Event) -> np.ndarray:
    assert isinstance(event.picture, np.ndarray)
    return event.picture


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
