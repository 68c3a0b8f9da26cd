"""Region-Adaptive Sampling (Liu et al. 2025, arXiv 2502.10389): the tiles that matter are computed,
the others are held.

A tile matters the less, the more the model's prediction varies inside it: that is how a ground
looks that is still noise. The longer a tile was held, the more it matters. The published code
multiplies the score whose *top* is held by the starvation factor, and so holds on to what it holds;
here the factor has the sign that the paper means. What is held is the data prediction, not the
velocity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from musiva.core.types import Action, TileValues
from musiva.policy.base import Trip
from musiva.policy.fields import check_number, check_whole
from musiva.policy.tiles import aged, newest, top_share, with_old

__all__ = ["Ras"]


@dataclass(frozen=True, slots=True)
class Regions:
    """Of each tile, how much the prediction varied where it was computed last, and how many
    evaluations ago that is.
    """

    variations: tuple[float | None, ...]
    ages: tuple[int, ...]


@dataclass(frozen=True)
class Ras:
    """Computes the first `warmup` evaluations and every `interval`-th in full; at the others,
    `share` of the tiles, and all that have been held `max_age` times. A tile is `side` tokens high
    and wide, and a forecast of `order` stands in for it: 0 holds. varied: 0, and tiles matter that
    vary little, or 1, and those do that vary much.
    """

    warmup: int = 4
    share: float = 0.5
    interval: int = 10
    max_age: int = 5
    starvation: float = 0.1
    order: int = 0
    side: int = 2
    varied: int = 0
    probes = ("tile_variation",)

    def __post_init__(self) -> None:
        for name in ("warmup", "interval", "max_age", "side"):
            check_whole(name, getattr(self, name), 1, 1000)
        check_number("share", self.share, 0.0, 1.0)
        check_number("starvation", self.starvation, 0.0, 100.0)
        check_whole("order", self.order, 0, 2)
        check_whole("varied", self.varied, 0, 1)

    @property
    def keep(self) -> int:
        return self.order + 1

    @property
    def tile(self) -> tuple[int, int]:
        return self.side, self.side

    def begin(self, trip: Trip) -> Regions:
        count = len(trip.tile_tokens)
        return Regions((None,) * count, (0,) * count)

    def observe(
        self,
        trip: Trip,
        memory: Regions,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float | TileValues],
    ) -> Regions:
        variations = measured["tile_variation"]
        assert isinstance(variations, tuple)
        return Regions(newest(memory.variations, variations), aged(memory.ages, action.tiles))

    def act(self, trip: Trip, memory: Regions, evaluation: int) -> Action:
        full = Action(order=self.order)
        since = evaluation - (self.warmup - 1)
        if since <= 0 or since % self.interval == 0:
            return full
        scores = map(self._score, memory.variations, memory.ages)
        chosen = with_old(top_share(tuple(scores), self.share), memory.ages, self.max_age)
        return replace(full, tiles=chosen)

    def _score(self, variation: float | None, age: int) -> float:
        """The logarithm, which keeps the order, of what the paper ranks by."""
        assert variation is not None, "the first evaluation computes all tiles"
        sign = 1.0 if self.varied else -1.0
        return self.starvation * age + sign * math.log(max(variation, 1e-30))
