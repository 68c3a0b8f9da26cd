"""Scenes on white put together from latents: emoji that were encoded alone, laid beside each other.

Which name belongs to which place is learnt from ever new company, and an encoded pool holds only so
many scenes. A latent position sees little beyond its own pixels, so that small pictures laid out on
whole positions are nearly the latent of the whole; encoded scenes come afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emoji_data import Emoji
from emoji_grounds import WHITE
from emoji_latents import Pool
from emoji_scenes import Scene, Shares, Size, draw_scene

__all__ = ["CELLS", "EMPTY", "Composer", "cells_of"]

EMPTY = Scene("single", (), WHITE)
# For each size: the layouts with their shares, and the side in pixels of an emoji in each.
CELLS: Mapping[Size, Mapping[int, Shares]] = {
    (64, 64): {
        32: {"beside": (0.4, 2, 2), "above": (0.25, 2, 2), "placed": (0.1, 1, 1),
             "corners": (0.25, 2, 4)},
    },
    (96, 96): {32: {"row": (0.6, 2, 3), "column": (0.4, 2, 3)}},
    (128, 128): {
        40: {"row": (0.3, 2, 3), "column": (0.15, 2, 3)},
        64: {"beside": (0.25, 2, 2), "above": (0.15, 2, 2), "corners": (0.15, 2, 4)},
    },
}  # fmt: skip


def cells_of(size: Size) -> tuple[int, ...]:
    return tuple(CELLS[size])


@dataclass(frozen=True, slots=True)
class Composer:
    """Draws scenes of one size and composes their latents.

    cells: pools of single emoji by the side of their pictures. white: for each emoji the row of its
    picture on white, or None where it is kept out. empty: the pool of `EMPTY` alone.
    """

    size: Size
    emoji: Sequence[Emoji]
    weights: np.ndarray
    cells: Mapping[int, Pool]
    white: Sequence[int | None]
    empty: Pool

    def draw(self, rng: np.random.Generator) -> tuple[Scene, np.ndarray, np.ndarray]:
        """A scene, and mean and deviation of its latent, `[C, h, w]` float32."""
        choices = CELLS[self.size]
        shares = np.array([sum(s for s, *_ in layouts.values()) for layouts in choices.values()])
        side = [*choices][rng.choice(len(choices), p=shares / shares.sum())]
        layouts = choices[side]
        drawn = draw_scene(self.emoji, self.weights, rng, layouts=layouts, white=1.0)
        # Nothing is scaled or moved here.
        placed = tuple(replace(one, fill=1.0, shift=(0.0, 0.0)) for one in drawn.placed)
        scene, pool = replace(drawn, placed=placed), self.cells[side]
        mean_CHW = self.empty.mean_VCHW[0].float().numpy().copy()
        std_CHW = self.empty.std_VCHW[0].float().numpy().copy()
        height, width = mean_CHW.shape[1:]
        for one in placed:
            row = self.white[one.emoji]
            assert row is not None, "scenes are drawn from emoji that are not kept out"
            cell = pool.mean_VCHW.shape[-1]
            top = min(max(round(one.slot.y * height - cell / 2), 0), height - cell)
            left = min(max(round(one.slot.x * width - cell / 2), 0), width - cell)
            at = (slice(None), slice(top, top + cell), slice(left, left + cell))
            mean_CHW[at] = pool.mean_VCHW[row].float().numpy()
            std_CHW[at] = pool.std_VCHW[row].float().numpy()
        return scene, mean_CHW, std_CHW
