"""`adaptive`, and tiles with steps of half the length where that is the cheaper way.

The square error of a run falls as the number of its evaluations to the power `ORDER` (measured on
calibration prompts). So a tile with one more evaluation in the middle of each gap keeps 2 ** -ORDER
of its error; if the tiles that hold most of a picture's error are few, all gaps may be longer for
the same error in all. A partial evaluation costs its share of the tokens, and something for the
pages of the others. Where the sum comes out above that of whole evaluations, which is the rule, all
tiles are computed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from musiva.core.types import Action, TileValues
from musiva.policy.adaptive import HELD, Adaptive, Progress
from musiva.policy.base import Trip
from musiva.policy.fields import check_number, check_whole
from musiva.policy.tiles import Choice, top_share

__all__ = ["AdaptiveTiles"]

ORDER = 3.1
# Of a whole evaluation, for whatever share of it.
OVERHEAD = 0.06
# Nothing is gained below: a partial evaluation makes neighbours see old keys and values.
WORTHWHILE = 0.95
SHARES = (0.0625, 0.125, 0.25, 0.375, 0.5)


@dataclass(frozen=True, slots=True)
class Plan:
    """progress: as of `adaptive`. longer: than its gap is this one. middle: the evaluation that
    computes `tiles` only, if one of the gap does. refined: the tiles that were computed in the
    middle of the last gap.
    """

    progress: Progress
    longer: float = 1.0
    middle: int | None = None
    tiles: Choice = ()
    refined: Choice = field(default=())


@dataclass(frozen=True)
class AdaptiveTiles:
    """As `Adaptive`; a tile is `side` tokens high and wide."""

    tolerance: float = 0.12
    gain: float = 0.2
    max_gap: float = 0.3
    side: int = 2
    worthwhile: float = WORTHWHILE
    probes = ("surprise", "tile_error")
    keep = 2

    def __post_init__(self) -> None:
        check_whole("side", self.side, 1, 1000)
        check_number("worthwhile", self.worthwhile, 0.0, 2.0)
        self._whole  # noqa: B018 - checks the other fields

    @property
    def _whole(self) -> Adaptive:
        return Adaptive(self.tolerance, self.gain, self.max_gap)

    @property
    def tile(self) -> tuple[int, int]:
        return self.side, self.side

    def begin(self, trip: Trip) -> Plan:
        """Raises InvalidInput for a model that is not calibrated."""
        return Plan(self._whole.begin(trip))

    def observe(
        self,
        trip: Trip,
        memory: Plan,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float | TileValues],
    ) -> Plan:
        if action.tiles is not None:
            return replace(memory, middle=None, refined=action.tiles)
        numbers = {k: x for k, x in measured.items() if not isinstance(x, tuple)}
        if memory.refined:
            # Usual errors are those of whole gaps.
            numbers.pop("surprise", None)
        whole = self._whole
        progress = whole.observe(trip, memory.progress, evaluation, action, numbers)
        errors = measured.get("tile_error")
        if not isinstance(errors, tuple):
            return Plan(progress)
        squares = _squares(errors, trip.tile_tokens, memory.refined)
        tiles, longer = self._choose(squares, trip.tile_tokens)
        if not tiles:
            return Plan(progress)
        middle = (evaluation + whole.following(trip, progress, longer)) // 2
        if middle == evaluation:
            return Plan(progress)
        return Plan(progress, longer, middle, tiles)

    def act(self, trip: Trip, memory: Plan, evaluation: int) -> Action:
        if evaluation == memory.middle:
            return replace(HELD, compute=True, tiles=memory.tiles)
        return self._whole.act(trip, memory.progress, evaluation, memory.longer)

    def _choose(self, squares: Sequence[float], tokens: Sequence[int]) -> tuple[Choice, float]:
        """The tiles that a middle evaluation should compute, none where it does not pay; and by how
        much longer gaps then are.
        """
        best, found, longer = self.worthwhile, (), 1.0
        total = sum(squares)
        for share in SHARES if total > 0.0 else ():
            chosen = top_share([s / n for s, n in zip(squares, tokens, strict=True)], share)
            held = sum(s for s, there in zip(squares, chosen, strict=True) if there) / total
            left = 1.0 - held + held * 2**-ORDER
            fewer = left ** (1 / ORDER)
            part = sum(n for n, there in zip(tokens, chosen, strict=True) if there) / sum(tokens)
            if fewer * (1.0 + part + OVERHEAD) < best:
                best, found, longer = fewer * (1.0 + part + OVERHEAD), chosen, 1 / fewer
        return found, longer


def _squares(errors: TileValues, tokens: Sequence[int], refined: Choice) -> list[float]:
    """The square error of each tile over a whole gap. One that was computed in its middle too has
    been forecast over half of it.
    """
    squares = [(e or 0.0) ** 2 * n for e, n in zip(errors, tokens, strict=True)]
    grown = 2 ** (ORDER - 1)
    return [
        square * grown if there else square
        for square, there in zip(squares, refined or (False,) * len(squares), strict=True)
    ]
