"""Traces: requests with their times. The same seed gives the same trace everywhere.

Poisson: independent arrivals. Bursty: a Poisson process that changes between two rates (a Markov-
modulated one: Fischer and Meier-Hellstern 1993), one of them six times the other. Diurnal: the rate
goes up and down like a sine, by thinning (Lewis and Shedler 1979); one day is the whole trace.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from musiva.core.errors import InvalidInput

__all__ = ["SHAPES", "Asked", "Mix", "make_trace", "read_trace", "scaled", "write_trace"]

# Of a bursty trace: how many times the calm rate a burst has, the share of time that bursts take,
# and how many requests come in a burst in the mean.
BURST, BURST_SHARE, BURST_COUNT = 6.0, 0.2, 20
# Of a diurnal one: how far the rate goes up and down, as a share of its mean.
SWING = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of a trace. at: seconds after its beginning. The other fields are those of
    `Engine.request`; None is the model's default, or no deadline.
    """

    at: float
    prompt: str
    seed: int
    size: tuple[int, int] | None = None
    steps: int | None = None
    min_quality: int | None = None
    max_quality: int | None = None
    quality: int | None = None
    policy: str | None = None
    deadline: float | None = None
    priority: int = 0
    tenant: str = "default"

    def options(self) -> dict[str, Any]:
        """Those of `Engine.request`, beside the prompt."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        del found["at"], found["prompt"]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What requests of a trace are drawn from. sizes: with weights. deadlines: seconds by size;
    empty for none. Of tenants, each is as likely.
    """

    prompts: Sequence[str]
    sizes: Mapping[tuple[int, int], float]
    deadlines: Mapping[tuple[int, int], float] = field(default_factory=dict)
    steps: int | None = None
    min_quality: int | None = None
    max_quality: int | None = None
    tenants: Sequence[str] = ("default",)


def make_trace(shape: str, mix: Mix, *, rate: float, count: int, seed: int) -> list[Asked]:
    """`count` requests at `rate` a second in the mean. The requests themselves depend on the seed
    alone, so that two rates can be compared on equal work. Raises InvalidInput.
    """
    if shape not in SHAPES:
        raise InvalidInput("shape", shape, ", ".join(SHAPES))
    if not (math.isfinite(rate) and rate > 0.0):
        raise InvalidInput("rate", rate, "requests a second, above 0")
    if count < 1:
        raise InvalidInput("count", count, "a whole number from 1")
    what, when = random.Random(f"requests {seed}"), random.Random(f"{shape} {seed}")
    sizes, weights = list(mix.sizes), list(mix.sizes.values())
    # In units of the mean time between two.
    times = SHAPES[shape](when, count)
    trace = []
    for i, time in enumerate(times):
        size = what.choices(sizes, weights)[0]
        trace.append(
            Asked(
                at=time / rate,
                prompt=what.choice(mix.prompts),
                seed=seed * 100_000 + i,
                size=size,
                steps=mix.steps,
                min_quality=mix.min_quality,
                max_quality=mix.max_quality,
                deadline=mix.deadlines.get(size),
                tenant=what.choice(mix.tenants),
            )
        )
    return trace


def _poisson(draw: random.Random, count: int) -> Iterator[float]:
    now = 0.0
    for _ in range(count):
        now += draw.expovariate(1.0)
        yield now


def _bursty(draw: random.Random, count: int) -> Iterator[float]:
    calm = 1.0 / (1.0 - BURST_SHARE + BURST_SHARE * BURST)
    rates = (calm, calm * BURST)
    # Mean lengths of a calm time and of a burst.
    burst = BURST_COUNT / rates[1]
    lengths = (burst * (1.0 - BURST_SHARE) / BURST_SHARE, burst)
    now, state, until = 0.0, 0, draw.expovariate(1.0 / lengths[0])
    for _ in range(count):
        while True:
            step = draw.expovariate(rates[state])
            if now + step <= until:
                now += step
                break
            # Without memory, so it may start anew where the rate changes.
            now, state = until, 1 - state
            until = now + draw.expovariate(1.0 / lengths[state])
        yield now


def _diurnal(draw: random.Random, count: int) -> Iterator[float]:
    now, day = 0.0, float(count)
    for _ in range(count):
        while True:
            now += draw.expovariate(1.0 + SWING)
            rate = 1.0 - SWING * math.cos(2.0 * math.pi * now / day)
            if draw.random() * (1.0 + SWING) <= rate:
                break
        yield now


SHAPES: Mapping[str, Callable[[random.Random, int], Iterator[float]]] = MappingProxyType(
    {"poisson": _poisson, "bursty": _bursty, "diurnal": _diurnal}
)


def scaled(trace: Sequence[Asked], *, faster: float = 1.0, deadlines: float = 1.0) -> list[Asked]:
    """The same requests, so many times as fast one after the other, with deadlines so many times
    as long.
    """
    return [
        replace(
            asked,
            at=asked.at / faster,
            deadline=None if asked.deadline is None else asked.deadline * deadlines,
        )
        for asked in trace
    ]


def write_trace(trace: Sequence[Asked], path: Path) -> None:
    """A line of JSON for each request; what is None stays out."""
    with path.open("w", encoding="utf-8") as file:
        for asked in trace:
            record = {k: v for k, v in asdict(asked).items() if v is not None}
            if asked.size is not None:
                record["size"] = "{}x{}".format(*asked.size)
            file.write(json.dumps(record) + "\n")


def read_trace(path: Path) -> list[Asked]:
    """In order of time. Raises InvalidInput naming the line and what is wrong with it."""
    known = {f.name for f in fields(Asked)}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("trace", str(path), f"a file that can be read ({error})") from error
    trace = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"trace line {number}", line, "a JSON object") from error
        if not isinstance(record, dict) or not {"at", "prompt"} <= record.keys() <= known:
            allowed = f"a JSON object with at, prompt, and of {', '.join(sorted(known))}"
            raise InvalidInput(f"trace line {number}", line, allowed)
        trace.append(_asked(record, number))
    if not trace:
        raise InvalidInput("trace", str(path), "a file with at least one request")
    return sorted(trace, key=lambda asked: asked.at)


def _asked(record: dict[str, Any], number: int) -> Asked:
    at, size = record["at"], record.get("size")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0.0 <= at < math.inf:
        raise InvalidInput(f"trace line {number}: at", at, "seconds from 0")
    if size is not None:
        width, _, height = str(size).partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise InvalidInput(f"trace line {number}: size", size, "WIDTHxHEIGHT")
        record["size"] = int(width), int(height)
    # Whoever runs it checks the rest, as it checks every request.
    return Asked(**{"seed": number - 1, **record})
