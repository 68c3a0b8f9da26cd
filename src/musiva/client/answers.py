"""Bytes of a good answer to what the client gives: whole answers, and streams of events."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Protocol, TypedDict, TypeVar

from musiva.client.failures import failure_of, unexpected
from musiva.client.pictures import Completed, Event, Picture, Preview, Progress
from musiva.client.sse import EventParser, ServerSentEvent
from musiva.core.errors import Unavailable

__all__ = ["EventReader", "Reader", "WholeReader", "json_of", "pictures_of"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
Json = Mapping[str, object]


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
            event = self._read(raw)
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

    def _read(self, raw: ServerSentEvent) -> Event | None:
        try:
            event = _object(json.loads(raw.data))
            match event.get("type", raw.event):
                case "image_generation.progress":
                    return _progress(event)
                case "image_generation.partial_image":
                    return _preview(event)
                case "image_generation.completed":
                    return _completed(event)
                case "error":
                    _object(event["error"])
                case _:
                    return None  # an event of a newer server
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise unexpected(self._url, f"event {raw.event!r}: {_reason(error)}") from error
        raise failure_of(200, raw.data.encode(), url=self._url, sent=self._sent)


def json_of(content: bytes) -> dict[str, object]:
    """A JSON object. Raises ValueError or TypeError."""
    return dict(_object(json.loads(content)))


def pictures_of(content: bytes) -> list[Picture]:
    """Of the answer to a generation. Raises KeyError, TypeError or ValueError."""
    answer = _object(json.loads(content))
    data, said = answer["data"], answer.get("warnings", [])
    if not isinstance(data, list) or not data or not isinstance(said, list):
        raise TypeError("data is no list of pictures")
    return [
        Picture(
            content=_content(item),
            format=_text(answer, "output_format"),
            seed=_whole(item, "seed"),
            index=index,
            warnings=tuple(map(str, said)),
            tile_counts=_counts(item, "tile_counts"),
            **_policy(answer),
            **_spent(item),
        )
        for index, item in enumerate(map(_object, data))
    ]


def _progress(event: Json) -> Progress:
    return Progress(
        index=_whole(event, "index"),
        evaluation=_whole(event, "evaluation"),
        num_evaluations=_whole(event, "num_evaluations"),
        waiting=_known(_whole, event, "waiting"),
        active_tiles=tuple(map(bool, _counts(event, "active_tiles"))),
        **_spent(event),
    )


def _preview(event: Json) -> Preview:
    return Preview(
        content=_content(event),
        format=_text(event, "output_format"),
        index=_whole(event, "index"),
        number=_whole(event, "partial_image_index"),
        evaluation=_whole(event, "evaluation"),
        num_evaluations=_whole(event, "num_evaluations"),
        computed=_known(_truth, event, "computed"),
        tiles=_tiles(event),
        active_tiles=tuple(map(bool, _counts(event, "active_tiles"))),
    )


def _completed(event: Json) -> Completed:
    index = _whole(event, "index")
    said = event.get("warnings") or []
    picture = Picture(
        content=_content(event),
        format=_text(event, "output_format"),
        seed=_whole(event, "seed"),
        index=index,
        warnings=tuple(map(str, said)) if isinstance(said, list) else (),
        tile_counts=_counts(event, "tile_counts"),
        **_policy(event),
        **_spent(event),
    )
    return Completed(index=index, picture=picture, timing=_object(event.get("timing") or {}))


class Policy(TypedDict):
    policy: str | None
    num_evaluations: int | None


class Spent(TypedDict):
    computed: int | None
    cost: float | None
    share: float | None
    tiles: tuple[int, int] | None


def _policy(where: Json) -> Policy:
    """Of a whole answer or a finished picture."""
    return Policy(
        policy=_known(_text, where, "policy"),
        num_evaluations=_known(_whole, where, "num_evaluations"),
    )


def _spent(where: Json) -> Spent:
    return Spent(
        computed=_known(_whole, where, "computed"),
        cost=_known(_number, where, "cost"),
        share=_known(_number, where, "share"),
        tiles=_tiles(where),
    )


def _known(read: Callable[[Json, str], T], where: Json, name: str) -> T | None:
    """None for what an older server does not tell."""
    return None if where.get(name) is None else read(where, name)


def _tiles(where: Json) -> tuple[int, int] | None:
    match _counts(where, "tiles"):
        case (rows, columns):
            return rows, columns
        case ():
            return None
        case _:
            raise TypeError("tiles is no pair of rows and columns")


def _counts(where: Json, name: str) -> tuple[int, ...]:
    """Whole numbers; none where they are absent."""
    values = where.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise TypeError(f"{name} is no list of whole numbers")
    return tuple(values)


def _truth(where: Json, name: str) -> bool:
    value = where[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} is neither true nor false")
    return value


def _number(where: Json, name: str) -> float:
    value = where[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is no number")
    return float(value)


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} instead of an object")
    return value


def _whole(where: Json, name: str) -> int:
    value = where[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is no whole number")
    return value


def _text(where: Json, name: str) -> str:
    value = where[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _content(where: Json) -> bytes:
    content = base64.b64decode(_text(where, "b64_json"), validate=True)
    if not content:
        raise ValueError("b64_json is empty")
    return content


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
