"""The engine's own loop around any denoiser: what policies are proved with.

A `ContractPipeline` has no weights but the denoiser's: prompts are drawn, and the picture of a
latent is its bytes, so that pictures are equal where latents are to the byte.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from torch import Tensor

from musiva.core.pack import Grid
from musiva.core.types import COMPUTE, GATES, Action, Gate, Prompt
from musiva.engine.pipeline import Defaults, Pipeline
from musiva.models.text import Words
from musiva.ops.linear import Linears, choose_kernel
from musiva.policy import Calibration, Conditions, PolicyClass, Trip, load_policy_class
from musiva.samplers import NoiseModel
from tests.contract.test_paged import model_of

__all__ = [
    "ContractPipeline",
    "WhimOfGates",
    "WhimOfTiles",
    "documented_policy",
    "pipeline_of",
    "selection",
]

FLOW = NoiseModel(prediction="flow", shift=1.5)
CLIPPED = NoiseModel(prediction="epsilon", scheduler="DDIMScheduler", clip=3.0)
FRAMES = 4


@dataclass(frozen=True, slots=True)
class DrawnPrompts:
    """Text rows that are drawn, by the prompt: a few of them, or many."""

    width: int
    num_bytes = 0
    modules = ()

    def tokenize(self, prompt: str) -> list[int]:
        return list(prompt.encode())

    def words(self, prompts: Sequence[Prompt]) -> list[Words]:
        seeds = [zlib.crc32(prompt.text.encode()) for prompt in prompts]
        return [
            Words(torch.randn(1 + s % 23, self.width, generator=torch.Generator().manual_seed(s)))
            for s in seeds
        ]


@dataclass(frozen=True, slots=True)
class ContractPipeline(Pipeline):
    """Clips of `FRAMES` latent frames where a token has two of them."""

    def grid(self, size: tuple[int, int], frames: int = 1) -> Grid:
        width, height = size
        count = FRAMES // self.denoiser.patch[0] if self.denoiser.patch[0] > 1 else 1
        return count, height // self.unit, width // self.unit

    def latent_shape(self, size: tuple[int, int], frames: int = 1) -> tuple[int, ...]:
        width, height = size
        counts = (FRAMES,) if self.denoiser.patch[0] > 1 else ()
        return (self.denoiser.in_channels, *counts, height, width)

    def decode(self, latent: Tensor, frames: int = 1) -> Tensor:
        """[3, 1, n]: levels that are the bytes of the latent, then 0."""
        level = latent.contiguous().flatten().view(torch.uint8).float()
        level = torch.nn.functional.pad(level, (0, -len(level) % 3))
        return (level / 127.5 - 1).view(3, 1, -1)

    def decode_parts(self, frames: int = 1) -> Sequence[Callable[[Tensor], Tensor]]:
        return [self.decode]

    def decode_shares(self, frames: int = 1) -> Sequence[float]:
        return (1.0,)


def calibration() -> Calibration:
    """Of latents and data predictions that move along random parabolas; the first evaluation may
    be coarse.
    """
    total, runs = 12, 200
    places = tuple(1 - i / total for i in range(total))
    generator = torch.Generator().manual_seed(0)
    level, slope, bend, noise = torch.randn(4, 2, 1, runs, generator=generator).unbind(0)
    at_P1 = torch.tensor(places)[:, None]
    clean_BPM = level + 0.5 * slope * at_P1 + 0.2 * bend * at_P1**2
    both_BNM = torch.cat([(1 - at_P1) * clean_BPM + at_P1 * noise, clean_BPM], 1)
    conditions = Conditions(steps=total, sampler="euler", guidance=3.0, size=(8, 8), prompts=8)
    return Calibration(
        places,
        (0.4,),
        both_BNM @ both_BNM.transpose(1, 2) / runs,
        0.1 * torch.randn(2, 3, 3, generator=generator),
        (0.0, 0.5, 0.0, 0.0),
        conditions,
        coarse=True,
    )


@cache
def pipeline_of(name: str, *, clipped: bool = False) -> ContractPipeline:
    """Around a denoiser of `tests.contract.test_paged.MODELS`. clipped: its data predictions are
    clipped, so that no gap is taken in one leap.
    """
    denoiser = model_of(name)
    unit = denoiser.patch[1]
    assert denoiser.text_width is not None
    return ContractPipeline(
        name=name,
        denoiser=denoiser,
        text=DrawnPrompts(denoiser.text_width),
        vae=SimpleNamespace(downscale=1, parameters=tuple, held_at_pixels=0.0),
        noise=CLIPPED if clipped else FLOW,
        defaults=Defaults(size=(8 * unit, 8 * unit), min_side=2 * unit, max_side=64),
        linears=Linears(choose_kernel(torch.float32)),
        device=torch.device("cpu"),
        unit=unit,
        calibration=calibration(),
    )


@cache
def documented_policy() -> PolicyClass:
    """The class of docs/policies.md, from a file."""
    text = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    example = next(part for part in text.split("```python\n")[1:] if "class Restless" in part)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "restless.py"
        file.write_text(example.split("```")[0], encoding="utf-8")
        return load_policy_class(f"{file}:Restless")[1]


@dataclass(frozen=True)
class Whim:
    """Whatever is allowed, by a seed."""

    seed: int = 0
    keep = 3
    probes = ("surprise", "forecast_error")

    def begin(self, trip: Trip) -> tuple[float | None, ...]:
        return ()

    def observe(self, trip: Trip, memory, evaluation: int, action: Action, measured):
        return (*memory, measured.get("surprise"))

    def act(self, trip: Trip, memory, evaluation: int) -> Action:
        draw = random.Random(1000 * self.seed + evaluation)
        if not evaluation:
            return self.first(trip, draw)
        if draw.random() < 0.3:
            calibrated = draw.random() < 0.5
            order = draw.randrange(2 if calibrated else 3)
            return Action(compute=False, order=order, calibrated=calibrated)
        if draw.random() < 0.2:
            return COMPUTE
        borrow = trip.guided and draw.random() < 0.3
        return replace(self.some(trip, draw), order=draw.randrange(3), borrow=borrow)

    def first(self, trip: Trip, draw: random.Random) -> Action:
        return COMPUTE

    def some(self, trip: Trip, draw: random.Random) -> Action:
        raise NotImplementedError


class WhimOfTiles(Whim):
    tile = (2, 3)
    probes = (*Whim.probes, "tile_error", "tile_variation")

    def first(self, trip: Trip, draw: random.Random) -> Action:
        return Action(coarse=trip.guided and draw.random() < 0.5)

    def some(self, trip: Trip, draw: random.Random) -> Action:
        chosen = [draw.random() < 0.4 for _ in trip.tile_tokens]
        chosen[draw.randrange(len(chosen))] = True
        return Action(tiles=tuple(chosen))


class WhimOfGates(Whim):
    probes = (*Whim.probes, *GATES)

    def some(self, trip: Trip, draw: random.Random) -> Action:
        probe = draw.choice(tuple(GATES))
        if draw.random() < 0.3:
            return Action(held=GATES[probe])
        rescale = (1.0, -0.5, 0.1) if draw.random() < 0.3 else ()
        return Action(gate=Gate(probe, draw.uniform(0.3, 1.5), rescale))


def selection(*factors: Sequence[str]) -> set[tuple[str, ...]]:
    """Few cases in which every two values of different factors meet."""
    cases = list(product(*factors))
    random.Random(0).shuffle(cases)
    seen: set[tuple[tuple[int, str], ...]] = set()
    chosen: set[tuple[str, ...]] = set()
    # Those that bring most new pairs come first.
    for least in range(math.comb(len(factors), 2), 0, -1):
        for case in cases:
            new = set(combinations(enumerate(case), 2)) - seen
            if len(new) >= least:
                seen |= new
                chosen.add(case)
    return chosen
