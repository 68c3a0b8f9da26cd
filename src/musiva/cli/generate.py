"""`musiva generate`: prompts to PNG files."""

from __future__ import annotations

import math
import queue
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from musiva.cli.machine import load_engine
from musiva.cli.pictures import Destination, grid_of, stem_of
from musiva.cli.progress import Progress
from musiva.core.env import Env
from musiva.core.errors import InvalidInput
from musiva.core.types import Request

if TYPE_CHECKING:
    from PIL import Image

    from musiva.engine import Engine, Event

__all__ = ["run"]

# The engine's words for what has another name here.
FLAGS = {"num_images": "n", "negative_prompt": "negative"}


def run(arguments: Namespace, env: Env) -> int:
    """Every value is checked, the destination too, before anything is computed; every picture is
    saved when it is done, so that an interruption keeps those that are.
    """
    count = arguments.n * len(arguments.prompt)
    destination = Destination(arguments.out, count=count, force=arguments.force)
    if arguments.grid and destination.is_file:
        raise InvalidInput(
            "out", str(arguments.out), "a directory, since --grid writes one more picture"
        )
    with load_engine(arguments, env) as engine:
        requests = _requests(engine, arguments)
        with Progress(sys.stderr, f"{count} picture{'s' if count > 1 else ''}") as progress:
            pictures = _collect(engine, requests, destination, progress)
    if arguments.grid:
        first = requests[0]
        note = {"grid": [request.prompt for request in requests], "seed": first.seed}
        grid = grid_of(_rows(pictures, arguments.n))
        print(destination.write(grid, f"{stem_of(first.prompt, first.seed)}-grid", note))
    return 0


def _requests(engine: Engine, arguments: Namespace) -> list[Request]:
    """One per prompt; all have the seed of the first. Raises InvalidInput."""
    options = {
        "negative_prompt": arguments.negative,
        "size": arguments.size,
        "steps": arguments.steps,
        "guidance": arguments.guidance,
        "num_images": arguments.n,
        "sampler": arguments.sampler,
        "spacing": arguments.spacing,
        "shift": arguments.shift,
    }
    requests: list[Request] = []
    try:
        for prompt in arguments.prompt:
            seed = requests[0].seed if requests else arguments.seed
            requests.append(engine.request(prompt, seed=seed, **options))
    except InvalidInput as error:
        raise type(error)(
            FLAGS.get(error.field, error.field), error.value, error.allowed
        ) from error
    return requests


def _collect(
    engine: Engine, requests: list[Request], destination: Destination, progress: Progress
) -> list[Image.Image]:
    """Pictures in the order of the prompts. A prompt that fails does not take the others with it;
    its error is raised when they are done.
    """
    from PIL import Image

    places = {request.id: place for place, request in enumerate(requests)}
    count = sum(request.num_images for request in requests)
    pictures: dict[tuple[int, int], Image.Image] = {}
    failures: list[Exception] = []
    for event in _events(engine, requests):
        request = requests[places[event.request]]
        if event.kind == "progress":
            progress.advance(event.num_evaluations * count)
        elif event.kind == "picture":
            picture = Image.fromarray(event.picture)  # pyright: ignore[reportArgumentType]
            pictures[places[request.id], event.index] = picture
            stem = stem_of(request.prompt, request.seed + event.index)
            note = _note(engine, request, event.index)
            print(destination.write(picture, stem, note), flush=True)
        elif event.error is not None:
            failures.append(event.error)
    if failures:
        raise failures[0]
    return [pictures[key] for key in sorted(pictures)]


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


def _note(engine: Engine, request: Request, index: int) -> Mapping[str, object]:
    """What it takes to make this picture again, in the words of the HTTP API."""
    path = request.path
    return {
        "model": engine.pipeline.name,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "size": f"{request.size[0]}x{request.size[1]}",
        "steps": path.steps,
        "seed": request.seed + index,
        "guidance_scale": request.guidance,
        "quality": request.quality,
        "sampler": path.sampler or engine.pipeline.noise.default_sampler(),
        "spacing": path.spacing,
        "shift": path.shift,
    }


def _rows(pictures: list[Image.Image], per_prompt: int) -> list[list[Image.Image]]:
    """A row per prompt; a single prompt, or single pictures, in a shape near a square."""
    columns = per_prompt if 1 < per_prompt < len(pictures) else math.ceil(math.sqrt(len(pictures)))
    return [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
