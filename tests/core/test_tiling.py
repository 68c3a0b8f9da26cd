"""Tiles of any grid: every token in one of them, where it belongs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from musiva.core.tiling import tile_members, tile_shape, tile_sizes, tile_tokens

GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
TILES = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(GRIDS, TILES)
def test_every_token_is_in_the_tile_over_its_place(grid, tile) -> None:
    rows, columns = tile_shape(grid, tile)
    expected: list[list[int]] = [[] for _ in range(rows * columns)]
    for token in range(grid[0] * grid[1] * grid[2]):
        y, x = token // grid[2] % grid[1], token % grid[2]
        expected[y // tile[0] * columns + x // tile[1]].append(token)
    assert all(expected)
    assert tile_sizes(grid, tile) == tuple(map(len, expected))
    members = [[t for t in row if t >= 0] for row in tile_members(grid, tile).tolist()]
    assert members == expected


@given(GRIDS, TILES, st.data())
def test_tokens_of_some_tiles_rise(grid, tile, data) -> None:
    members = tile_members(grid, tile).tolist()
    chosen = tuple(data.draw(st.lists(st.booleans(), min_size=len(members), max_size=len(members))))
    wanted = [t for row, there in zip(members, chosen, strict=True) if there for t in row if t >= 0]
    assert tile_tokens(grid, tile, chosen).tolist() == sorted(wanted)
