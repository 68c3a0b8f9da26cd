"""Tiles: blocks of neighbouring tokens of a sample, over all of its frames, in row-major order.

A `tile` is (height, width) in tokens; those at the far edges of a grid are smaller.

L tokens of a sample, A of them in some tiles, N tiles of at most M tokens each.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from musiva.core.rows import Grid

__all__ = ["Tile", "tile_members", "tile_shape", "tile_sizes", "tile_tokens"]

Tile = tuple[int, int]


def tile_shape(grid: Grid, tile: Tile) -> tuple[int, int]:
    """(rows, columns) of tiles."""
    _, height, width = grid
    return -(-height // tile[0]), -(-width // tile[1])


def tile_sizes(grid: Grid, tile: Tile) -> tuple[int, ...]:
    """Tokens of each tile, of all frames together."""
    frames, height, width = grid
    heights = [min(tile[0], height - top) for top in range(0, height, tile[0])]
    widths = [min(tile[1], width - left) for left in range(0, width, tile[1])]
    return tuple(frames * h * w for h in heights for w in widths)


@lru_cache(maxsize=256)
def tile_tokens(grid: Grid, tile: Tile, chosen: tuple[bool, ...]) -> Tensor:
    """[A] int64 on the host, rising: the tokens of the chosen tiles; not to be changed."""
    return torch.tensor(chosen)[_tile_of(grid, tile)].nonzero()[:, 0]


@lru_cache(maxsize=64)
def tile_members(grid: Grid, tile: Tile) -> Tensor:
    """[N, M] int64 on the host: the tokens of each tile, then -1; not to be changed."""
    order_L = _tile_of(grid, tile).argsort(stable=True)
    parts = order_L.split(tile_sizes(grid, tile))
    return pad_sequence(list(parts), batch_first=True, padding_value=-1)


def _tile_of(grid: Grid, tile: Tile) -> Tensor:
    """[L] int64: the tile of each token."""
    frames, height, width = grid
    columns = tile_shape(grid, tile)[1]
    row_H, column_W = torch.arange(height) // tile[0], torch.arange(width) // tile[1]
    return (row_H[:, None] * columns + column_W).expand(frames, -1, -1).flatten()
