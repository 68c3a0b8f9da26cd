"""What a policy is: pure code that decides, evaluation by evaluation, what of a sample is computed.

A policy never sees a tensor. Its memory of one sample is a value that comes in and goes out, so
that requests cannot touch each other's decisions and a run can be replayed, moved and simulated.
The five parts of Musiva's docs/decisions/0004 are where they are named below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

from musiva.core.errors import InvalidInput
from musiva.core.rows import Grid
from musiva.core.tiling import Tile, tile_shape, tile_sizes
from musiva.core.types import GATES, Action, TileValues
from musiva.policy.calibration import Calibration
from musiva.policy.fields import check_whole
from musiva.samplers import Schedule, clean_weights

__all__ = ["PROBES", "TILE_PROBES", "Asks", "Policy", "TilePolicy", "Trip"]

M = TypeVar("M")

# What an executor can measure where the model runs. "forecast_error": root mean square of the data
# prediction less what a forecast of the action's order would have said; not before a second value
# is there. "change": the same less the value computed last. "scale": of the data prediction itself.
# "surprise": the error of a calibrated forecast over what it usually is. The others are what gates
# measure, both branches of a sample taken together, not before the second evaluation, and what they
# hold is kept of a sample whose policy names them: "first_block": relative L1 change of what the
# first segment adds, against the last evaluation that was computed in full. "modulated_input": of
# the first block's modulated input, against the evaluation before.
PROBES = ("forecast_error", "change", "scale", "surprise", *GATES)
# The same for each tile that was computed, for policies that have tiles. "tile_error": root mean
# square of the data prediction less what would have stood in for it, by the action's `order` and
# `calibrated`. "tile_change": the same less the value before. "tile_variation": standard deviation
# of what the model predicts, over the tile's tokens and channels.
TILE_PROBES = ("tile_error", "tile_change", "tile_variation")


@dataclass(frozen=True, slots=True)
class Trip:
    """One sample's path, as a policy sees it; one number per evaluation each.

    places: where on the path, the abscissa of forecasts, falling from noise to picture. weights:
    how much of an error of the data prediction reaches the final latent. times: how far along, from
    0 to 1; where the model is calibrated, in evaluations of the calibrated path. guided: there is
    an unconditional branch, which an action may borrow. calibrated: actions may be, too. coarse:
    the first one may be. tiles: (rows, columns) of them, tile_tokens: the tokens of each, and tile:
    (height, width) of one in tokens, of a policy that has tiles. patches: parts that the engine
    may cut what is computed into, where it need not be exact.
    """

    places: tuple[float, ...]
    weights: tuple[float, ...]
    times: tuple[float, ...]
    guided: bool = False
    calibrated: bool = False
    coarse: bool = False
    tiles: tuple[int, int] | None = None
    tile_tokens: tuple[int, ...] = ()
    tile: Tile | None = None
    patches: int = 1

    @classmethod
    def along(
        cls, schedule: Schedule, *, guided: bool, calibration: Calibration | None = None
    ) -> Trip:
        """Without tiles."""
        total = schedule.num_evaluations
        places = tuple(map(schedule.place, range(total)))
        times = tuple(i / total for i in range(total))
        if calibration is not None:
            times = tuple(map(calibration.time, places))
        weights = clean_weights(schedule)
        coarse = guided and calibration is not None and calibration.coarse
        return cls(places, weights, times, guided, calibration is not None, coarse)

    def tiled(self, grid: Grid, tile: Tile | None) -> Trip:
        """With the tiles of a sample of this grid, for a policy that has them."""
        if tile is None:
            return self
        shape, sizes = tile_shape(grid, tile), tile_sizes(grid, tile)
        return replace(self, tiles=shape, tile_tokens=sizes, tile=tile)

    @property
    def num_evaluations(self) -> int:
        return len(self.places)


class Policy(Protocol[M]):
    """All methods are pure: equal arguments give equal answers, and nothing is changed."""

    @property
    def probes(self) -> tuple[str, ...]:
        """Names out of `PROBES` to be measured wherever the model runs (probe)."""
        ...

    @property
    def keep(self) -> int:
        """How many computed data predictions are kept, one more than the order of its forecasts; 0
        if it makes none (estimator).
        """
        ...

    def begin(self, trip: Trip) -> M:
        """The memory of a sample that starts (prior)."""
        ...

    def observe(
        self,
        trip: Trip,
        memory: M,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float],
    ) -> M:
        """The memory after the model ran, in full or in part, at `evaluation` (accumulator).
        action: what was done; it has no gate, but what its gate decided.
        """
        ...

    def act(self, trip: Trip, memory: M, evaluation: int) -> Action:
        """What is done at an evaluation (controller), and what stands in for what is not computed
        (estimator: `Action.order`, or what a gate holds). Evaluation 0 has to compute all: there
        is nothing to forecast from.
        """
        ...


@runtime_checkable
class TilePolicy(Policy[M], Protocol[M]):
    """A policy whose actions may compute some tiles only."""

    @property
    def tile(self) -> tuple[int, int]:
        """(height, width) of a tile, in tokens."""
        ...

    def observe(
        self,
        trip: Trip,
        memory: M,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float | TileValues],
    ) -> M:
        """As of any policy. action: has no tiles where all were computed, also against its will.
        measured: of `TILE_PROBES` too.
        """
        ...


@dataclass(frozen=True, slots=True)
class Asks:
    """What a policy asks to be measured and kept of a sample, and the tile that it is cut by: read
    from it once, since a class of a user can say anything, and something else each time.
    """

    probes: tuple[str, ...] = ()
    keep: int = 0
    tile: Tile | None = None

    @classmethod
    def of(cls, policy: Policy) -> Asks:
        """Raises InvalidInput for "probes", "keep" or "tile"."""
        probes, keep, tile, known = policy.probes, policy.keep, None, PROBES
        if isinstance(policy, TilePolicy):
            tile, known = policy.tile, PROBES + TILE_PROBES
            _check_tile(tile)
        if not isinstance(probes, tuple) or any(probe not in known for probe in probes):
            raise InvalidInput("probes", probes, f"out of {', '.join(known)}, in a tuple")
        check_whole("keep", keep, 0, 1000)
        return cls(probes, keep, tile)

    @property
    def gates(self) -> tuple[str, ...]:
        """The probes that gates measure."""
        return tuple(probe for probe in GATES if probe in self.probes)


def _check_tile(tile: object) -> None:
    """Raises InvalidInput."""
    sides = tile if isinstance(tile, tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise InvalidInput("tile", tile, "(height, width), from 1 token each")
