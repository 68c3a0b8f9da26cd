"""In the middle of a gap, where forecasts are worst on the whole, the tiles whose forecasts are
worst are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from musiva.core.types import Action, TileValues
from musiva.policy.base import Trip
from musiva.policy.fields import check_number, check_whole
from musiva.policy.tiles import newest, top_share, with_neighbours

__all__ = ["Refine"]


@dataclass(frozen=True)
class Refine:
    """Computes the first `warmup` evaluations and every `interval`-th in full; half way between two
    of them, the `share` of tiles whose forecasts were wrong by most when they were checked last,
    and the `border` tiles around each; forecasts of `order` elsewhere. A tile is `side` tokens high
    and wide.
    """

    interval: int = 4
    warmup: int = 3
    share: float = 0.25
    border: int = 0
    order: int = 1
    side: int = 2
    probes = ("tile_error",)

    def __post_init__(self) -> None:
        for name in ("interval", "warmup", "side"):
            check_whole(name, getattr(self, name), 1, 1000)
        check_number("share", self.share, 0.0, 1.0)
        check_whole("border", self.border, 0, 1000)
        check_whole("order", self.order, 0, 2)

    @property
    def keep(self) -> int:
        return self.order + 1

    @property
    def tile(self) -> tuple[int, int]:
        return self.side, self.side

    def begin(self, trip: Trip) -> TileValues:
        return (None,) * len(trip.tile_tokens)

    def observe(
        self,
        trip: Trip,
        memory: TileValues,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float | TileValues],
    ) -> TileValues:
        errors = measured.get("tile_error")
        return newest(memory, errors) if isinstance(errors, tuple) else memory

    def act(self, trip: Trip, memory: TileValues, evaluation: int) -> Action:
        """memory: the error of each tile's last checked forecast; None before the first."""
        full = Action(order=self.order)
        since = evaluation - (self.warmup - 1)
        if since <= 0 or since % self.interval == 0:
            return full
        errors = [error for error in memory if error is not None]
        if since % self.interval != self.interval // 2 or len(errors) < len(memory):
            return replace(full, compute=False)
        assert trip.tiles is not None
        chosen = with_neighbours(top_share(errors, self.share), trip.tiles, self.border)
        return replace(full, tiles=chosen)
