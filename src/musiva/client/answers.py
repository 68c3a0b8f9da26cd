"""Bytes of a good answer to what the client gives: whole answers, and streams of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Protocol, TypedDict, TypeVar

from musiva.client.failures import failure_of, unexpected
from musiva.client.pictures import Completed, Event, Picture, Preview, Progress, Seconds
from musiva.client.reading import (
    Json,
    counts,
    file_of,
    known,
    number,
    object_of,
    tiles,
    truth,
    whole,
    word,
)
from musiva.client.sse import EventParser, ServerSentEvent
from musiva.core.errors import Unavailable

__all__ = [
    "EventReader",
    "Reader",
    "WholeReader",
    "pictures_of",
    "preview_of",
    "progress_of",
    "read_event",
]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Reader(Protocol[T_co]):
    """Takes the body of one answer with status 200, piece by piece.

    feed, end: give what is complete; end raises Unavailable if something is missing.
    complete: whether nothing is missing, so that a connection that breaks now does no harm.
    reached: says to a person how far it got.
    """

    def feed(self, chunk: bytes) -> Iterator[T_co]: ...
    def end(self) -> Iterator[T_co]: ...
    @property
    def complete(self) -> bool: ...
    @property
    def reached(self) -> str: ...


class WholeReader(Generic[T]):
    """An answer that means something only when it is there as a whole.

    parse: gives its meaning; raises KeyError, TypeError, ValueError for what is no such answer.
    """

    complete = False

    def __init__(self, url: str, parse: Callable[[bytes], T]) -> None:
        self._url, self._parse = url, parse
        self._content = bytearray()

    @property
    def reached(self) -> str:
        return f"after {len(self._content)} bytes of its answer"

    def feed(self, chunk: bytes) -> Iterator[T]:
        self._content += chunk
        return iter(())

    def end(self) -> Iterator[T]:
        try:
            yield self._parse(bytes(self._content))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise unexpected(self._url, _reason(error)) from error


class EventReader:
    """The events of a streamed generation of num_images pictures. sent: the body it answers."""

    def __init__(self, url: str, sent: Json) -> None:
        self._url, self._sent = url, sent
        num_images = sent.get("n", 1)
        self._num_images = num_images if isinstance(num_images, int) else 1
        self._parser = EventParser()
        self._completed: set[int] = set()
        self._last: tuple[int, int, int] | None = None

    @property
    def complete(self) -> bool:
        return len(self._completed) >= self._num_images

    @property
    def reached(self) -> str:
        if self._last is None and not self._completed:
            return "before its first event"
        done = f"{len(self._completed)} of {self._num_images} pictures complete"
        if self._last is None:
            return f"with {done}"
        index, evaluation, total = self._last
        return f"after evaluation {evaluation} of {total} of picture {index}, {done}"

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Raises the error of an error event, Unavailable for events that make no sense."""
        for raw in self._parser.feed(chunk):
            event = read_event(raw, KINDS, self._url, self._sent)
            if isinstance(event, Completed):
                self._completed.add(event.index)
                self._last = None
            elif event is not None:
                self._last = event.index, event.evaluation, event.num_evaluations
            if event is not None:
                yield event

    def end(self) -> Iterator[Event]:
        if not self.complete:
            raise Unavailable(f"{self._url}: the stream ended {self.reached}")
        return iter(())


def read_event(
    raw: ServerSentEvent, kinds: Mapping[str, Callable[[Json], T]], url: str, sent: Json
) -> T | None:
    """By its type; None for one of a newer server. Raises the error of an error event, Unavailable
    for one that makes no sense.
    """
    try:
        event = object_of(json.loads(raw.data))
        kind = event.get("type", raw.event)
        if kind != "error":
            read = kinds.get(kind) if isinstance(kind, str) else None
            return None if read is None else read(event)
        object_of(event["error"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise unexpected(url, f"event {raw.event!r}: {_reason(error)}") from error
    raise failure_of(200, raw.data.encode(), url=url, sent=sent)


def pictures_of(content: bytes) -> list[Picture]:
    """Of the answer to a generation. Raises KeyError, TypeError or ValueError."""
    answer = object_of(json.loads(content))
    data, said = answer["data"], answer.get("warnings", [])
    if not isinstance(data, list) or not data or not isinstance(said, list):
        raise TypeError("data is no list of pictures")
    return [
        Picture(
            content=file_of(item),
            format=word(answer, "output_format"),
            seed=whole(item, "seed"),
            index=index,
            warnings=tuple(map(str, said)),
            tile_counts=counts(item, "tile_counts"),
            **_policy(answer),
            **_spent(item),
            **_fared(item),
        )
        for index, item in enumerate(map(object_of, data))
    ]


def progress_of(event: Json) -> Progress:
    return Progress(
        index=whole(event, "index"),
        evaluation=whole(event, "evaluation"),
        num_evaluations=whole(event, "num_evaluations"),
        waiting=known(whole, event, "waiting"),
        active_tiles=tuple(map(bool, counts(event, "active_tiles"))),
        quality=known(whole, event, "quality"),
        predicted_seconds=known(number, event, "predicted_seconds"),
        **_spent(event),
    )


def preview_of(event: Json, number: int) -> Preview:
    """number: counts those of its picture."""
    return Preview(
        content=file_of(event),
        format=word(event, "output_format"),
        index=whole(event, "index"),
        number=number,
        evaluation=whole(event, "evaluation"),
        num_evaluations=whole(event, "num_evaluations"),
        computed=known(truth, event, "computed"),
        tiles=tiles(event),
        active_tiles=tuple(map(bool, counts(event, "active_tiles"))),
    )


def _completed(event: Json) -> Completed:
    index = whole(event, "index")
    said = event.get("warnings") or []
    picture = Picture(
        content=file_of(event),
        format=word(event, "output_format"),
        seed=whole(event, "seed"),
        index=index,
        warnings=tuple(map(str, said)) if isinstance(said, list) else (),
        tile_counts=counts(event, "tile_counts"),
        **_policy(event),
        **_spent(event),
        **_fared(event),
    )
    return Completed(index=index, picture=picture, timing=object_of(event.get("timing") or {}))


class Policy(TypedDict):
    policy: str | None
    num_evaluations: int | None


class Fared(TypedDict):
    quality_promised: int | None
    quality_used: int | None
    deadline_met: bool | None
    reused: int | None
    seconds: Seconds | None


class Spent(TypedDict):
    computed: int | None
    cost: float | None
    share: float | None
    tiles: tuple[int, int] | None


def _policy(where: Json) -> Policy:
    """Of a whole answer or a finished picture."""
    return Policy(
        policy=known(word, where, "policy"),
        num_evaluations=known(whole, where, "num_evaluations"),
    )


def _spent(where: Json) -> Spent:
    return Spent(
        computed=known(whole, where, "computed"),
        cost=known(number, where, "cost"),
        share=known(number, where, "share"),
        tiles=tiles(where),
    )


def _fared(where: Json) -> Fared:
    return Fared(
        quality_promised=known(whole, where, "quality_promised"),
        quality_used=known(whole, where, "quality_used"),
        deadline_met=known(truth, where, "deadline_met"),
        reused=known(whole, where, "reused"),
        seconds=known(_seconds, where, "seconds"),
    )


def _seconds(where: Json, name: str) -> Seconds:
    told = object_of(where[name])
    return Seconds(
        queue=number(told, "queue"),
        encode=number(told, "encode"),
        denoise=number(told, "denoise"),
        decode=number(told, "decode"),
        total=number(told, "total"),
    )


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


KINDS: Mapping[str, Callable[[Json], Event]] = {
    "image_generation.progress": progress_of,
    "image_generation.partial_image": lambda event: preview_of(
        event, whole(event, "partial_image_index")
    ),
    "image_generation.completed": _completed,
}
