"""The words of a request in Python, and the same as a body of `POST /v1/images/generations`."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from typing import BinaryIO, TypedDict

from musiva.core.errors import InvalidInput

__all__ = ["PUBLIC", "EngineOptions", "Options", "body_of", "options_from", "picture_call"]

# Python's words, which are the engine's, for what has another name in the HTTP API.
WIRE = {
    "guidance": "guidance_scale",
    "num_images": "n",
    "previews": "partial_images",
    "preview_format": "partial_format",
}
PUBLIC = {wire: name for name, wire in WIRE.items()}
SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")
# Fields of a body that change nothing about one picture's pixels.
ASIDE = (
    "background",
    "complexity",
    "deadline",
    "latency",
    "moderation",
    "n",
    "output_compression",
    "output_format",
    "partial_format",
    "partial_images",
    "previews",
    "priority",
    "progress",
    "response_format",
    "safety_identifier",
    "stream",
    "style",
    "tenant",
    "user",
)


class PictureOptions(TypedDict, total=False):
    """What a request may say beside its prompt; None, like saying nothing, is the model's own.

    size                (width, height) in pixels
    frames              of a clip, with a model of clips; 1 is a picture
    fps                 1 to 60: frames a second at which a file shows a clip
    steps               1 to 1000
    seed                0 to 2^63 - 1, of the first picture; the client draws one when none is given
    guidance            0 to 100: how closely to follow the prompt; at 1 and below it is off
    num_images          pictures; picture i has seed + i
    negative_prompt     what to keep away from
    sampler, spacing    names, see `models()`
    policy              what is computed and what forecast: a name, see `models()`, and its fields
    shift               0.01 to 100, of a flow model's times
    min_quality         1 to 100, that is kept at least
    max_quality         min_quality to 100, where there is time for it
    latency             a deadline by name: interactive, standard, relaxed, batch (none)
    priority            -100 to 100; what is higher goes first
    tenant              whom it is of
    """

    size: tuple[int, int] | None
    frames: int | None
    fps: float | None
    steps: int | None
    seed: int | None
    guidance: float | None
    num_images: int | None
    negative_prompt: str | None
    sampler: str | None
    spacing: str | None
    shift: float | None
    policy: str | None
    min_quality: int | None
    max_quality: int | None
    latency: str | None
    priority: int | None
    tenant: str | None


class EngineOptions(PictureOptions, total=False):
    """The same, to an engine in this process too.

    deadline            seconds until all pictures have to be there; else it raises Overloaded at
                        once, if that can be foreseen
    """

    deadline: float | None


class Options(PictureOptions, total=False):
    """What a request to a server may say beside its prompt.

    deadline            as to an engine, or a date and time as RFC 3339 writes it
    quality             1 to 100, or a word of OpenAI's
    output_format       png (default), jpeg or webp; of clips webp (default) or png
    output_compression  0 to 100, of jpeg and webp: 100 loses least
    model               name of the model; a server that serves another one refuses
    """

    deadline: float | str | None
    quality: int | str | None
    output_format: str | None
    output_compression: int | None
    model: str | None


def body_of(prompt: str, options: Mapping[str, object]) -> dict[str, object]:
    """A body with a seed, so that sending it again gives the same pictures.

    Limits are the server's to check. Raises InvalidInput for what no body can say, and TypeError
    for an option that does not exist.
    """
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"no such option: {', '.join(unknown)}")
    if not isinstance(prompt, str):
        raise InvalidInput("prompt", prompt, "a text")
    body: dict[str, object] = {}
    for name, value in {"prompt": prompt, **options}.items():
        if value is None:
            continue
        if name == "size":
            value = _size_text(value)
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidInput(name, value, "a number or Unicode text that JSON can say") from error
        body[WIRE.get(name, name)] = value
    body.setdefault("seed", secrets.randbits(32))
    return body


def options_from(parameters: Mapping[str, object]) -> tuple[str, Options]:
    """Prompt and options of the body that a picture carries (`musiva.core.provenance`).

    Raises InvalidInput for "picture" when it has a field that this version does not know, or whose
    value is of the wrong type.
    """
    options: dict[str, object] = {}
    for field, value in parameters.items():
        name = PUBLIC.get(field, field)
        if field in ("prompt", *ASIDE) or value is None:
            continue
        if name not in Options.__annotations__ or field in WIRE:
            raise _strange(field, value, "fields that this version of Musiva knows")
        if name == "size":
            options[name] = _size_of(value)
            continue
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise _strange(field, value, "numbers and texts")
        options[name] = value
    prompt = parameters.get("prompt")
    if not isinstance(prompt, str):
        raise _strange("prompt", prompt, "a prompt")
    return prompt, Options(**options)  # pyright: ignore[reportArgumentType]


def picture_call(
    file: str | os.PathLike[str] | bytes | BinaryIO,
    prompt: str | None,
    overrides: Mapping[str, object],
) -> tuple[str, Options]:
    """Prompt and options to make a picture again; an override of None takes an option away.

    Raises InvalidInput for "picture".
    """
    # Pillow takes longer to import than the client.
    from musiva.core.provenance import read_parameters

    found, options = options_from(read_parameters(file))
    merged = {**options, **overrides}
    return found if prompt is None else prompt, Options(**merged)  # pyright: ignore[reportArgumentType]


def _size_text(size: object) -> str:
    match size:
        case [int(width), int(height)] if min(width, height) > 0:
            return f"{width:d}x{height:d}"
    raise InvalidInput("size", size, "(width, height), two whole numbers of pixels")


def _size_of(size: object) -> tuple[int, int] | None:
    if size == "auto":
        return None
    match = SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise _strange("size", size, 'a size "WIDTHxHEIGHT"')
    return int(match[1]), int(match[2])


def _strange(field: str, value: object, allowed: str) -> InvalidInput:
    return InvalidInput("picture", {field: value}, f"one whose parameters have {allowed}")
