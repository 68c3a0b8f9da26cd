"""`musiva generate`: prompts to files of pictures and clips, computed here or by a server."""

from __future__ import annotations

import queue
import secrets
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from musiva.cli.common_flags import STORE_MIB
from musiva.cli.key import chosen_key, refused_key
from musiva.cli.machine import load_engine
from musiva.cli.pictures import Destination, file_of
from musiva.cli.results import Results
from musiva.core.env import Env
from musiva.core.errors import InvalidInput, UnknownModel
from musiva.core.types import Event, Request

if TYPE_CHECKING:
    from musiva.client import Options
    from musiva.engine import Engine

__all__ = ["run"]

# Each of these chooses what is computed.
CHOOSING = ("quality", "min_quality", "max_quality", "policy")
OPTIONS = (
    *("size", "frames", "fps", "steps", "seed", "guidance"),
    *("sampler", "spacing", "shift", "deadline"),
    *CHOOSING,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """options: of every prompt, in the words that the engine and the client share; there is a seed.
    model: what the user names; known: what the picture of --like names.
    """

    prompts: tuple[str, ...]
    options: Mapping[str, Any]
    model: str | None
    known: str | None


def run(arguments: Namespace, env: Env) -> int:
    """The destination is checked before any work, and every value before it is computed with; every
    picture is saved when it is done, so that an interruption keeps those that are.
    """
    wanted = _wanted(arguments)
    count = arguments.n * len(wanted.prompts)
    destination = Destination(arguments.out, count=count, force=arguments.force)
    if arguments.grid and destination.is_file:
        raise InvalidInput(
            "out", str(arguments.out), "a directory, since --grid writes one more picture"
        )
    results = Results(wanted.prompts, arguments.n, destination, _asked(wanted.options))
    if arguments.server is None:
        _locally(arguments, env, wanted, results, destination.suffix)
    else:
        _remotely(arguments, env, wanted, results, destination.suffix)
    if arguments.grid:
        results.write_grid()
    return 0


def _wanted(arguments: Namespace) -> Wanted:
    """What the picture of --like says, and over it what the user says. Raises InvalidInput."""
    prompts: list[str] = arguments.prompt
    known: dict[str, Any] = {}
    if arguments.like is not None:
        # With the client comes httpx, which takes a moment.
        from musiva.client import options_from
        from musiva.core.provenance import read_parameters

        prompt, found = options_from(read_parameters(arguments.like))
        prompts = prompts or [prompt]
        known |= found
    if not prompts:
        raise InvalidInput("prompt", "", "a PROMPT, or several, or --like FILE")
    said = {name: getattr(arguments, name) for name in OPTIONS}
    said |= {"negative_prompt": arguments.negative, "num_images": arguments.n}
    model = known.pop("model", None)
    if any(said[name] is not None for name in CHOOSING):
        for name in CHOOSING:
            known.pop(name, None)
    options = known | {name: value for name, value in said.items() if value is not None}
    options.setdefault("seed", secrets.randbits(32))
    return Wanted(tuple(prompts), options, arguments.model, model)


def _asked(options: Mapping[str, Any]) -> str:
    """What chooses how much is computed."""
    if "max_quality" in options:
        return f"at quality {options['min_quality']} to {options['max_quality']}"
    if "min_quality" in options:
        return f"at quality {options['min_quality']}"
    if options.get("quality", 100) != 100:
        return f"at quality {options['quality']}"
    return f"with policy {options['policy']}" if options.get("policy") else ""


def _remotely(
    arguments: Namespace, env: Env, wanted: Wanted, results: Results, suffix: str | None
) -> None:
    for flag in ("dtype", "device", "compile", "threads", "store-mib"):
        value = getattr(arguments, flag.replace("-", "_"))
        if value is not None:
            raise InvalidInput(flag, value, "nothing beside --server, whose own choice it is")
    file: Path | None = arguments.api_key_file
    api_key = chosen_key(file, env)
    from musiva.cli.remote import generate_remotely

    chosen = {"model": wanted.model or wanted.known, "output_format": suffix and suffix[1:]}
    options = cast("Options", {**wanted.options, **chosen})
    try:
        with results:
            generate_remotely(arguments.server, wanted.prompts, options, results, api_key=api_key)
    except InvalidInput as error:
        if error.field == "api_key":
            raise refused_key(file, env, error) from error
        raise


def _locally(
    arguments: Namespace, env: Env, wanted: Wanted, results: Results, suffix: str | None
) -> None:
    if arguments.api_key_file is not None:
        file = str(arguments.api_key_file)
        raise InvalidInput("api-key-file", file, "nothing without --server, which it is for")
    chosen = {"model": _model(wanted), "dtype": arguments.dtype or "float32"}
    chosen |= {"device": arguments.device or "auto", "threads": arguments.threads}
    chosen["compile"] = bool(arguments.compile)
    from musiva.engine import Engine
    from musiva.policy import POLICIES, with_own

    options, policies = dict(wanted.options), POLICIES
    if options.get("policy") is not None:
        options["policy"], policies = with_own(options["policy"])
    # All prompts are there at once, however many they are.
    config = Engine.Config(
        max_waiting=len(wanted.prompts),
        policies=policies,
        store_bytes=(arguments.store_mib or STORE_MIB) << 20,
    )
    with load_engine(Namespace(**chosen), env, config) as engine:
        requests = [engine.request(prompt, **options) for prompt in wanted.prompts]
        with results:
            for request in requests:
                results.warn(request.without_effect)
            _collect(engine, requests, results, suffix)


def _model(wanted: Wanted) -> str:
    """Raises UnknownModel for a picture of a model that is known by its name only: it does not tell
    where that lies.
    """
    if wanted.model is not None or wanted.known is None:
        return wanted.model or "default"
    from musiva.engine import shipped_models

    if wanted.known not in shipped_models():
        raise UnknownModel(
            "model", wanted.known, "with --like a shipped model, or its directory by --model DIR"
        )
    return wanted.known


def _collect(engine: Engine, requests: list[Request], results: Results, suffix: str | None) -> None:
    """suffix: of all files; None is that of each kind."""
    from musiva.core.clip import shown

    places = {request.id: place for place, request in enumerate(requests)}
    for event in _events(engine, requests):
        place = places[event.request]
        request = requests[place]
        if event.kind == "progress":
            results.advance(place, event.index, event.evaluation, event.num_evaluations)
        elif event.kind == "picture":
            picture = shown(event.picture, request.fps)  # pyright: ignore[reportArgumentType]
            own = suffix or (".png" if request.frames == 1 else ".webp")
            content = file_of(picture, engine.parameters(request, event.index, event.actions), own)
            seed, share = request.seed + event.index, event.cost / event.num_evaluations
            results.add(place, event.index, seed, picture, content, own, share)
        elif event.error is not None:
            results.fail(place, event.error)


def _events(engine: Engine, requests: list[Request]) -> Iterator[Event]:
    """Events of all requests as they come, until each has ended."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    for request in requests:
        engine.submit(request, events.put)
    left = len(requests)
    while left:
        event = events.get()
        left -= event.kind in ("done", "failed")
        yield event
