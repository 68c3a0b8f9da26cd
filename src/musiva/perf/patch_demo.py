"""One picture by several workers at once, its tiles with different numbers of evaluations, beside
the same picture by one worker that computes all of it.

H, W: tokens of the picture's grid.
"""

from __future__ import annotations

import math
import statistics
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from musiva.core.clip import Clip
from musiva.core.errors import InvalidInput
from musiva.core.types import Action, Level, Request
from musiva.engine import Fleet, InlineExecutor, Pipeline, Scheduler, StepLoop, Workers
from musiva.engine.intake import Intake
from musiva.engine.patches import parts_of
from musiva.engine.stream import Stream
from musiva.perf.quality import psnr

__all__ = ["Course", "Demo", "draw", "follow"]

POLICY = "adaptive_tiles"
# Pictures of each kind that are timed, in turn, after one that is not.
TIMED = 3
FPS = 4.0
# Frames for which the last one stays.
LAST = 8

GROUND, INK, SOFT, LINE = (255, 255, 255), (20, 32, 29), (82, 96, 92), (220, 227, 224)
# Of ranks, told apart also by those who see no red or no green; more ranks begin again.
RANKS = ((11, 107, 93), (66, 122, 204), (232, 172, 62), (178, 72, 24))
LITTLE_TO_MUCH = ((244, 248, 247), (140, 200, 188), (11, 107, 93))
SIDE, GAP, MARGIN, HEAD, FOOT = 300, 24, 28, 92, 150


@dataclass(slots=True)
class Course:
    """How a picture was made. previews: by the number of evaluations that were done. seconds: of
    pictures like it.
    """

    actions: tuple[Action, ...] = ()
    previews: dict[int, np.ndarray] = field(default_factory=dict)
    picture: np.ndarray | None = None
    cost: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class Demo:
    """plain: by one worker, all of it computed. ours: by `ranks` workers. token_bytes: of what
    sites keep of one token, over all branches.
    """

    request: Request
    ranks: int
    grid: tuple[int, int, int]
    tile: tuple[int, int]
    token_bytes: int
    plain: Course
    ours: Course

    def owners(self, evaluation: int) -> np.ndarray:
        """[H, W]: the rank that computes each token at an evaluation, -1 where nobody does."""
        action = self.ours.actions[evaluation]
        found = np.full(math.prod(self.grid), -1)
        if action.compute and action.held is None:
            for rank, tokens in enumerate(parts_of(self.grid, self.tile, action.tiles, self.ranks)):
                found[tokens.numpy()] = rank
        return found.reshape(self.grid)[0]

    def counts(self, evaluation: int) -> np.ndarray:
        """[H, W]: evaluations up to this one that computed each token."""
        return sum((self.owners(i) >= 0).astype(int) for i in range(evaluation + 1))  # type: ignore[return-value]

    def sent_bytes(self, evaluation: int) -> int:
        """What ranks have sent each other of features up to an evaluation."""
        tokens = sum(int((self.owners(i) >= 0).sum()) for i in range(evaluation + 1))
        return tokens * self.token_bytes * (self.ranks - 1)

    def table(self) -> list[Mapping[str, object]]:
        """What a user reads."""
        plain, ours = self.plain, self.ours
        assert plain.picture is not None
        assert ours.picture is not None
        last = len(ours.actions) - 1
        counts = self.counts(last)
        return [
            {
                "what": "plain",
                "workers": 1,
                "seconds": plain.seconds,
                "evaluations_worth": plain.cost,
                "fewest": len(plain.actions),
                "most": len(plain.actions),
                "sent_mib": 0.0,
                "psnr": None,
            },
            {
                "what": "patches",
                "workers": self.ranks,
                "seconds": ours.seconds,
                "evaluations_worth": ours.cost,
                "fewest": int(counts.min()),
                "most": int(counts.max()),
                "sent_mib": self.sent_bytes(last) / 2**20,
                "psnr": psnr(ours.picture, plain.picture),
            },
        ]


def follow(
    pipeline: Pipeline,
    model: str,
    prompt: str,
    *,
    ranks: int,
    threads: int,
    quality: int,
    loaded: Mapping[str, Any],
    **options: object,
) -> Demo:
    """Make the picture both ways, and time them in turn. threads: of each process. quality: that is
    asked for of the tiles. loaded: keywords of `load_pipeline`, for each process. Raises
    InvalidInput for what the model does not do.
    """
    if pipeline.clips is not None:
        raise InvalidInput("model", model, "one that makes pictures")
    levels = Level("never"), Level(POLICY, quality)
    ways = (
        Workers(count=1, threads=threads),
        Workers(count=1, degree=ranks, form="patch", threads=threads),
    )
    with ExitStack() as stack:
        fleets = [stack.enter_context(Fleet(pipeline, way, model=model, **loaded)) for way in ways]
        requests = [
            replace(fleet.request(prompt, **options), levels=(level,))  # type: ignore[arg-type]
            for fleet, level in zip(fleets, levels, strict=True)
        ]
        trip = fleets[1].trip_of(requests[1])
        shown = [replace(one, previews=trip.num_evaluations - 1) for one in requests]
        courses = [_course(*both) for both in zip(fleets, shown, strict=True)]
        times: list[list[float]] = [[], []]
        for _ in range(TIMED):
            for i, both in enumerate(zip(fleets, requests, strict=True)):
                start = time.perf_counter()
                _course(*both)
                times[i].append(time.perf_counter() - start)
    for course, several in zip(courses, times, strict=True):
        course.seconds = statistics.median(several)
    assert trip.tile is not None
    request, grid = requests[1], pipeline.grid(requests[1].size)
    token_bytes = _token_bytes(pipeline, request) * len(request.prompts)
    return Demo(request, ranks, grid, trip.tile, token_bytes, *courses)


def _course(fleet: Fleet, request: Request) -> Course:
    """Make a picture, and look on. A request is sent under a new name each time."""
    course = Course()
    for event in Stream(fleet, replace(request, id=uuid.uuid4().hex), None):
        if event.kind == "preview":
            course.previews[event.evaluation] = np.asarray(event.picture)
        elif event.kind == "picture":
            course.picture = np.asarray(event.picture)
            course.actions, course.cost = event.actions, event.cost
    assert course.picture is not None
    return course


def _token_bytes(pipeline: Pipeline, request: Request) -> int:
    """Of what all sites of the model keep of a token, of one branch."""
    executor, scheduler = InlineExecutor(pipeline), Scheduler.Config().build()
    loop, intake = StepLoop(executor, scheduler), Intake(pipeline, tariff=scheduler.tariff)
    loop.submit(
        request,
        policies=intake.policies_of(request),
        trip=intake.trip_of(request),
        rows=intake.rows_of(request),
    )
    grid = pipeline.grid(request.size)
    while not executor.run.knows(grid):
        loop.step()
    needs = executor.run.needs(grid).values()
    return sum(math.prod(need.feature) * need.dtype.itemsize for need in needs)


def draw(demo: Demo) -> Clip:
    """Both, evaluation by evaluation: what the solver takes the picture for, which rank computes
    which tokens, and how often each was computed.
    """
    count = len(demo.ours.actions)
    frames = [_frame(demo, i) for i in range(count)]
    return Clip((*frames, *[frames[-1]] * LAST), FPS)


def _frame(demo: Demo, evaluation: int) -> Image.Image:
    width = 2 * MARGIN + 4 * SIDE + 3 * GAP
    canvas = Image.new("RGB", (width, HEAD + SIDE + FOOT), GROUND)
    pen = ImageDraw.Draw(canvas)
    plain, ours, last = demo.plain, demo.ours, len(demo.ours.actions) - 1
    owners, counts = demo.owners(evaluation), demo.counts(evaluation)
    times = plain.seconds / ours.seconds
    _text(pen, (MARGIN, 18), f"{demo.request.prompt}", 22, INK)
    head = f"evaluation {evaluation + 1} of {last + 1}"
    _text(pen, (MARGIN, 52), head, 15, SOFT)
    panels = [
        ("1 worker, all of it", _enlarged(_shown(plain, evaluation))),
        (f"{demo.ranks} workers, a part each", _enlarged(_shown(ours, evaluation))),
        ("who computes what now", _enlarged(_coloured_ranks(owners))),
        ("evaluations of each token", _enlarged(_heat(counts, last + 1))),
    ]
    for i, (title, picture) in enumerate(panels):
        left = MARGIN + i * (SIDE + GAP)
        _text(pen, (left, HEAD - 16), title, 13, SOFT)
        canvas.paste(picture, (left, HEAD))
        pen.rectangle((left, HEAD, left + SIDE - 1, HEAD + SIDE - 1), outline=LINE)
    _bars(pen, demo, owners)
    computed = counts.sum() / counts.size
    lines = [
        f"{computed:.1f} of {evaluation + 1} evaluations a token; from {counts.min()} to "
        f"{counts.max()}",
        f"{demo.sent_bytes(evaluation) / 2**20:.1f} MiB of features sent between workers",
    ]
    if evaluation == last:
        assert ours.picture is not None
        assert plain.picture is not None
        decibels = psnr(ours.picture, plain.picture)
        lines.append(
            f"{ours.seconds:.2f} s, plain {plain.seconds:.2f} s: {times:.1f} times as fast, "
            f"{decibels:.1f} dB from the plain picture"
        )
    for i, line in enumerate(lines):
        _text(pen, (MARGIN + 2 * (SIDE + GAP), HEAD + SIDE + 24 + 26 * i), line, 15, INK)
    return canvas


def _bars(pen: ImageDraw.ImageDraw, demo: Demo, owners: np.ndarray) -> None:
    """The tokens that each rank computes now."""
    top, most = HEAD + SIDE + 24, max(owners.size // demo.ranks, 1)
    for rank in range(demo.ranks):
        tokens = int((owners == rank).sum())
        y = top + rank * (FOOT - 40) // max(demo.ranks, 1)
        _text(pen, (MARGIN, y), f"worker {rank}", 13, SOFT)
        left, room = MARGIN + 80, SIDE
        pen.rectangle((left, y + 2, left + room, y + 14), LINE)
        if tokens:
            end = left + round(room * min(tokens / most, 1.0))
            pen.rectangle((left, y + 2, end, y + 14), RANKS[rank % len(RANKS)])
        _text(pen, (left + room + 10, y), f"{tokens} tokens", 13, INK)


def _shown(course: Course, evaluation: int) -> np.ndarray:
    """The picture as it is after an evaluation."""
    assert course.picture is not None
    shown = {**course.previews, len(course.actions): course.picture}
    # Evaluations that are skipped together are shown together.
    return shown[min(done for done in shown if done > evaluation)]


def _coloured_ranks(owners: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8; what nobody computes is light."""
    ranks = range(int(owners.max()) + 1)
    # The last one is that of -1.
    table = np.array([*(RANKS[i % len(RANKS)] for i in ranks), (236, 240, 239)])
    return table[owners].astype(np.uint8)


def _heat(counts: np.ndarray, most: int) -> np.ndarray:
    stops = np.linspace(0.0, 1.0, len(LITTLE_TO_MUCH))
    share = counts / most
    channels = [np.interp(share, stops, [c[i] for c in LITTLE_TO_MUCH]) for i in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _enlarged(picture: np.ndarray) -> Image.Image:
    """Into a square, whatever its shape."""
    image = Image.fromarray(picture)
    scale = SIDE / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    small = Image.Resampling.NEAREST if max(image.size) < 64 else Image.Resampling.BICUBIC
    square = Image.new("RGB", (SIDE, SIDE), GROUND)
    square.paste(image.resize(size, small), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def _text(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, ...]
) -> None:
    pen.text(at, text, colour, ImageFont.load_default(size))
