"""Values out of JSON objects; each raises KeyError, TypeError or ValueError for what is not as it
should be.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = [
    "Json",
    "counts",
    "file_of",
    "json_of",
    "known",
    "listed",
    "number",
    "object_of",
    "tiles",
    "truth",
    "whole",
    "word",
]

T = TypeVar("T")
Json = Mapping[str, object]


def json_of(content: bytes) -> dict[str, object]:
    """A JSON object."""
    return dict(object_of(json.loads(content)))


def object_of(value: object) -> Json:
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} instead of an object")
    return value


def known(read: Callable[[Json, str], T], where: Json, name: str) -> T | None:
    """None for what is null, or what an older server does not tell."""
    return None if where.get(name) is None else read(where, name)


def tiles(where: Json) -> tuple[int, int] | None:
    match counts(where, "tiles"):
        case (rows, columns):
            return rows, columns
        case ():
            return None
        case _:
            raise TypeError("tiles is no pair of rows and columns")


def counts(where: Json, name: str) -> tuple[int, ...]:
    """Whole numbers; none where they are absent."""
    values = where.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise TypeError(f"{name} is no list of whole numbers")
    return tuple(values)


def listed(where: Json, name: str) -> list[Json]:
    """Objects."""
    values = where[name]
    if not isinstance(values, list):
        raise TypeError(f"{name} is no list")
    return [object_of(value) for value in values]


def truth(where: Json, name: str) -> bool:
    value = where[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} is neither true nor false")
    return value


def number(where: Json, name: str) -> float:
    value = where[name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is no number")
    return float(value)


def whole(where: Json, name: str) -> int:
    value = where[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is no whole number")
    return value


def word(where: Json, name: str) -> str:
    value = where[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def file_of(where: Json) -> bytes:
    """Of `b64_json`, which is not empty."""
    found = base64.b64decode(word(where, "b64_json"), validate=True)
    if not found:
        raise ValueError("b64_json is empty")
    return found
