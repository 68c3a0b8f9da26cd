"""Which samples make up a step: order, randomness and packs, all pure functions of (seed, sample,
epoch).

Nothing here depends on the machine, the number of workers or how often a run was resumed: a
`Cursor` is all that a checkpoint has to keep. Packs mix samples of many sizes and are filled up to
a row budget (the native resolution training of NaViT, Dehghani et al., 2023, and FiT, Lu et al.,
2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from musiva.core.errors import InvalidInput

__all__ = ["Cursor", "Draw", "Order", "fill_pack", "keyed_rng"]


@dataclass(frozen=True, slots=True)
class Draw:
    """One visit to a sample: everything random about it is keyed by `(seed, sample, epoch, turn)`.

    `turn` tells apart the visits of a sample that a weight above 1 shows several times per epoch.
    """

    sample: int
    epoch: int
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a run has read: the next draw is number `position` of epoch `epoch`."""

    epoch: int = 0
    position: int = 0


def keyed_rng(seed: int, draw: Draw, purpose: str) -> np.random.Generator:
    """A random stream that belongs to one draw and one purpose ("noise", "caption", ...)."""
    key = [seed, draw.sample, draw.epoch, draw.turn, *purpose.encode()]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


class Order:
    """The endless, shuffled order of draws over samples with weights.

    In every epoch sample i comes floor(weight) times, and once more with the probability of the
    rest. Keeps the last epoch's permutation as a cache only: the same cursor always gives the same
    draw.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        weights: Sequence[float]
        seed: int

        def build(self) -> Order:
            """Raises InvalidInput for weights that are negative, not finite or all 0."""
            return Order(self)

    def __init__(self, config: Config) -> None:
        weights = np.asarray(config.weights, dtype=np.float64)
        if (
            weights.ndim != 1
            or not np.isfinite(weights).all()
            or (weights < 0).any()
            or weights.sum() <= 0
        ):
            raise InvalidInput(
                "weights", config.weights, "finite numbers of at least 0, not all of them 0"
            )
        self._weights = weights
        self._seed = config.seed
        self._epoch = -1
        self._draws: list[Draw] = []

    def next(self, cursor: Cursor) -> tuple[Draw, Cursor]:
        """The draw at `cursor` and the cursor behind it."""
        while True:
            draws = self._of_epoch(cursor.epoch)
            if cursor.position < len(draws):
                return draws[cursor.position], Cursor(cursor.epoch, cursor.position + 1)
            cursor = Cursor(cursor.epoch + 1, 0)

    def _of_epoch(self, epoch: int) -> list[Draw]:
        if epoch != self._epoch:
            key = [self._seed, epoch, *b"order"]
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
            whole = np.floor(self._weights)
            turns = (whole + (rng.random(len(whole)) < self._weights - whole)).astype(int)
            draws = [Draw(i, epoch, turn) for i, count in enumerate(turns) for turn in range(count)]
            self._draws = [draws[i] for i in rng.permutation(len(draws))]
            self._epoch = epoch
        return self._draws


def fill_pack(
    order: Order, cursor: Cursor, rows_of: Callable[[Draw], int], row_budget: int
) -> tuple[list[Draw], Cursor]:
    """Draws in order until the next one would exceed `row_budget` rows; a pack has at least one
    draw.

    Raises InvalidInput when a single draw has more rows than the budget.
    """
    draws: list[Draw] = []
    rows = 0
    while True:
        draw, behind = order.next(cursor)
        count = rows_of(draw)
        if count > row_budget:
            raise InvalidInput(
                "row_budget", row_budget, f"at least {count}, the rows of the largest sample"
            )
        if rows + count > row_budget:
            return draws, cursor
        draws.append(draw)
        rows += count
        cursor = behind
