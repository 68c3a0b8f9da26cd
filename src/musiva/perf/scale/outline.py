"""Models as numbers: what their pictures and clips take on one device, without their weights.

Seconds are others' measurements, as the notes behind docs/scale.md quote them; how much of them is
attention and how much linear layers follows from the shapes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.pack import ROW_ALIGN
from musiva.core.types import Kind, Path, Request
from musiva.cost import CostModel, Work
from musiva.cost.work import FEATURES
from musiva.perf.scale.setting import Sends
from musiva.perf.traffic import Asked, Mix, Wanted, make_trace
from musiva.policy import Never, Trip

__all__ = ["Outline", "linear_and_pairs", "outlines"]

Size = tuple[int, int]
# Bytes of a number in an activation, and of one in a prediction.
HALF, SINGLE = 2, 4
# Multiply and add, for each parameter that a token meets: 4 of width^2 in attention, 8 in the MLP.
LINEAR = 24.0
# Of a query and a key: their product, and that with the value.
PAIR = 4.0
# Seconds of a step of FLUX.1-dev that four devices take as one does: of 4.30 s in 28 steps on one
# and 1.63 s on four, less what they send each other by `h200`.
FIXED = 0.0197


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """tokens: of a sample, by size in pixels; samples of all sizes are as frequent. evaluations: of
    a sample; branches: of each. cost: of one device. sends: see `Sends`. source: of its seconds.
    """

    name: str
    tokens: Mapping[Size, int]
    evaluations: int
    branches: int
    cost: CostModel
    sends: Sends
    source: str

    def rows(self, size: Size) -> int:
        """Of all branches of a sample."""
        return -(-self.tokens[size] // ROW_ALIGN) * ROW_ALIGN * self.branches

    def seconds(self, size: Size) -> float:
        """That a sample takes one device, if nothing else is there."""
        rows = self.rows(size)
        pairs = rows * rows // self.branches
        work = Work(kind=Kind.DENOISE, items=1, rows=rows, pairs=pairs, branches=self.branches)
        return self.evaluations * self.cost.seconds(work)

    @property
    def mean_seconds(self) -> float:
        return statistics.fmean(map(self.seconds, self.tokens))

    def trace(self, *, rate: float, count: int, seed: int) -> list[Wanted]:
        """That many requests, at so many a second in the mean."""
        mix = Mix(prompts=("a fox",), sizes=dict.fromkeys(self.tokens, 1.0))
        trace = make_trace("poisson", mix, rate=rate, count=count, seed=seed)
        return [self.wanted(f"r{i}", asked) for i, asked in enumerate(trace)]

    def wanted(self, name: str, asked: Asked) -> Wanted:
        """Of the dense run."""
        assert asked.size is not None
        request = Request(
            id=name,
            prompt=asked.prompt,
            size=asked.size,
            path=Path(steps=self.evaluations),
            seed=asked.seed,
            guidance=4.0,
            distilled=self.branches == 1,
        )
        places = tuple(1.0 - i / self.evaluations for i in range(self.evaluations))
        ones = (1.0,) * self.evaluations
        trip = Trip(places, ones, tuple(1.0 - x for x in places), guided=self.branches > 1)
        return Wanted(asked, request, (Never(),), trip, self.rows(asked.size))


def linear_and_pairs(
    seconds: float, *, rows: int, pairs: int, width: int, blocks: int, forward: float = 0.0
) -> CostModel:
    """Of a transformer that takes so long for a forward of so many rows and pairs: `forward` of
    it whatever the rows are, and the rest by the operations of linear layers and of attention, at
    one pace. pairs: 0 where attention grows with rows alone. Prompts and pictures cost nothing.
    """
    linear, attention = LINEAR * blocks * width**2, PAIR * blocks * width
    pace = (seconds - forward) / (linear * rows + attention * pairs)
    own = {
        "forward": forward,
        "rows": linear * pace,
        "pairs": attention * pace if pairs else 0.0,
    }
    weights = {kind: (0.0,) * len(FEATURES[kind]) for kind in Kind}
    names = FEATURES[Kind.DENOISE]
    return CostModel({**weights, Kind.DENOISE: tuple(own.get(name, 0.0) for name in names)})


def _picture() -> Outline:
    """FLUX.1-dev at 1024 x 1024, and at a quarter of that. Its seconds on one H100, whose compute
    an H200 has, and on four say how much of a step does not get less with the rows.
    """
    tokens, width, blocks = 4096, 3072, 57
    cost = linear_and_pairs(
        4.30 / 28, rows=tokens, pairs=tokens**2, width=width, blocks=blocks, forward=FIXED
    )
    return Outline(
        name="picture",
        tokens={(1024, 1024): tokens, (512, 512): tokens // 4},
        evaluations=28,
        branches=1,
        cost=cost,
        sends=Sends(row=width * HALF, attentions=blocks, prediction=64 * SINGLE),
        source="FLUX.1-dev, 28 steps compiled, in 4.30 s on one H100, and in 1.63 s on four "
        "(xDiT's documentation)",
    )


def _video() -> Outline:
    """Wan 2.1 14B, 832 x 480, 81 frames: 21 latent frames of 30 x 52 tokens."""
    tokens, width, blocks = 21 * 30 * 52, 5120, 40
    rows = 2 * -(-tokens // ROW_ALIGN) * ROW_ALIGN
    cost = linear_and_pairs(6.13, rows=rows, pairs=rows**2 // 2, width=width, blocks=blocks)
    return Outline(
        name="video",
        tokens={(832, 480): tokens},
        evaluations=50,
        branches=2,
        cost=cost,
        sends=Sends(row=width * HALF, attentions=blocks, prediction=64 * SINGLE),
        source="Wan 2.1 14B 480P, 81 frames, 6.13 s a step on one H100 with SGLang "
        "(LightX2V's own table)",
    )


def _clip() -> Outline:
    """Open-Sora 1.2, 480P, 51 frames: 15 latent frames of 1590 tokens, 28 pairs of blocks, one in
    frames and one in columns. Attention in a frame grows with tokens as linear layers do.
    """
    tokens, width, pairs = 15 * 1590, 1152, 28
    rows = 2 * -(-tokens // ROW_ALIGN) * ROW_ALIGN
    cost = linear_and_pairs(26.54 / 30, rows=rows, pairs=0, width=width, blocks=2 * pairs)
    return Outline(
        name="clip",
        tokens={(856, 480): tokens},
        evaluations=30,
        branches=2,
        cost=cost,
        sends=Sends(row=width * HALF, attentions=pairs, switches=pairs, prediction=16 * SINGLE),
        source="Open-Sora 1.2, 480P, 51 frames, 30 steps in 26.54 s on one H100 "
        "(Pyramid Attention Broadcast's table)",
    )


def outlines() -> Mapping[str, Outline]:
    """By name."""
    return {outline.name: outline for outline in (_picture(), _video(), _clip())}
