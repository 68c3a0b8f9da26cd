"""Scenes composed from latents: each emoji where the caption says, white elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoji_composed import CELLS, EMPTY, Composer, cells_of
from emoji_data import Emoji
from emoji_grounds import WHITE
from emoji_latents import Pool
from emoji_scenes import held_out_pair
from tests.recipes.test_emoji_scenes import many

COUNT, CHANNELS = 30, 2


def pool_of(side: int) -> Pool:
    """Row 2 * i is emoji i on white, all of value i + 1; odd rows are other grounds."""
    value_V = torch.arange(2 * COUNT) / 2 + 1
    mean_VCHW = value_V[:, None, None, None].expand(-1, CHANNELS, side // 8, side // 8).half()
    return Pool([EMPTY] * (2 * COUNT), mean_VCHW, mean_VCHW / 100)


def composer_of(size: tuple[int, int], emoji: list[Emoji]) -> Composer:
    weights = np.full(COUNT, 1 / (COUNT - 1))
    weights[3] = 0.0
    white = [None if i == 3 else 2 * i for i in range(COUNT)]
    zeros = torch.zeros(1, CHANNELS, size[0] // 8, size[1] // 8).half()
    cells = {side: pool_of(side) for side in cells_of(size)}
    return Composer(size, emoji, weights, cells, white, Pool([EMPTY], zeros, zeros))


@pytest.mark.parametrize("size", CELLS)
def test_every_emoji_is_where_its_caption_says(size: tuple[int, int]) -> None:
    emoji = many(COUNT)
    composer = composer_of(size, emoji)
    rng, layouts = np.random.default_rng(0), set()
    for _ in range(200):
        scene, mean_CHW, std_CHW = composer.draw(rng)
        layouts.add(scene.layout)
        assert scene.ground == WHITE
        placed = [one.emoji for one in scene.placed]
        assert 3 not in placed
        assert not any(
            held_out_pair(emoji[a], emoji[b]) for i, a in enumerate(placed) for b in placed[:i]
        )
        covered = 0
        for one in scene.placed:
            row, column = (
                int(p * n)
                for p, n in zip((one.slot.y, one.slot.x), mean_CHW.shape[1:], strict=True)
            )
            assert mean_CHW[0, row, column] == one.emoji + 1
            covered += int((mean_CHW[0] == one.emoji + 1).sum())
        assert np.allclose(std_CHW * 100, mean_CHW, rtol=1e-2)
        # None lies on another one, and all else is white.
        assert covered == int((mean_CHW[0] != 0).sum())
        sides = {cell // 8 for cell in cells_of(size)}
        assert covered / len(placed) in {side * side for side in sides}
    assert layouts == {name for shares in CELLS[size].values() for name in shares}
