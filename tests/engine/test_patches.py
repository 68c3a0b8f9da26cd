"""Parts of a sample: which tokens each has; and workers whose ranks have one each."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.fleets import Told, fleet_of, kill, submit

from musiva.core.errors import InvalidInput
from musiva.core.tiling import tile_shape, tile_tokens
from musiva.core.types import Action, Level
from musiva.engine import Workers, load_pipeline
from musiva.engine.actions import MOST_CUT, TOGETHER
from musiva.engine.patches import parts_of
from musiva.engine.pipeline import Pipeline

SIDES = st.integers(1, 7)


@st.composite
def chosen(draw: st.DrawFn) -> tuple:
    """A grid, the tiles that it is cut by, those that are computed, and a number of parts."""
    grid = draw(st.integers(1, 3)), draw(SIDES), draw(SIDES)
    tile = draw(st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    tiles = None
    if tile is not None and draw(st.booleans()):
        rows, columns = tile_shape(grid, tile)
        several = st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)
        tiles = tuple(draw(several))
    return grid, tile, tiles, draw(st.integers(1, 5))


@given(chosen())
def test_every_token_that_is_computed_is_in_one_part(case: tuple) -> None:
    grid, tile, tiles, count = case
    parts = parts_of(*case)
    every = torch.arange(grid[0] * grid[1] * grid[2])
    if tiles is not None:
        every = tile_tokens(grid, tile, tiles)
    assert len(parts) == count
    assert torch.equal(torch.cat(parts).sort().values, every)
    for tokens in parts:
        assert torch.equal(tokens, tokens.sort().values)


@given(chosen())
def test_no_way_to_cut_between_tokens_has_a_smaller_largest_part(case: tuple) -> None:
    grid, tile, tiles, count = case
    total = sum(map(len, parts_of(*case)))
    count = min(count, 3)
    best = min(
        max(b - a for a, b in zip((0, *cuts), (*cuts, total), strict=True))
        for cuts in combinations_with_replacement(range(total + 1), count - 1)
    )
    assert max(map(len, parts_of(grid, tile, tiles, count))) == best


def test_parts_follow_each_other_in_the_order_of_tiles() -> None:
    """2 x 2 tiles of 2 x 2 tokens, of which three are computed."""
    parts = parts_of((1, 4, 4), (2, 2), (True, False, True, True), 3)
    assert [tokens.tolist() for tokens in parts] == [[0, 1, 4, 5], [8, 9, 12, 13], [10, 11, 14, 15]]
    uneven = parts_of((1, 4, 4), (2, 2), (True, False, True, True), 5)
    assert [len(tokens) for tokens in uneven] == [2, 2, 3, 2, 3]


@pytest.fixture(scope="module")
def pipeline(calibrated_model: Path) -> Pipeline:
    return load_pipeline(calibrated_model, device="cpu")


ASKED = {"prompt": "a red fox", "size": (56, 40), "steps": 9, "seed": 3}


def patches_of(told: Told) -> list[int]:
    (event,) = (event for event in told.events if event.kind == "picture")
    assert all(isinstance(action, Action) for action in event.actions)
    return [action.patches for action in event.actions if action.compute]


@pytest.mark.parametrize("degree", [2, 3])
def test_ranks_of_a_worker_have_parts_below_quality_100(pipeline: Pipeline, degree: int) -> None:
    found = []
    for lose in (False, True):
        with fleet_of(pipeline, 2, degree=degree, form="patch", attempts=100) as fleet:
            lost = [] if lose else [True]

            def also(event, fleet=fleet, lost=lost) -> None:
                if event.kind == "progress" and event.evaluation > TOGETHER + 1 and not lost:
                    lost.append(True)
                    kill(fleet, event.request)

            cut, dense = Told(also), Told()
            # Of a policy that skips nothing, behind which there would be no parts.
            low = replace(fleet.request(**ASKED), levels=(Level("never", MOST_CUT),))
            fleet.submit(low, cut)
            submit(fleet, dense, **ASKED)
            assert cut.wait().error is None
            assert dense.wait().error is None
        assert set(patches_of(dense)) == {1}
        assert set(patches_of(cut)) == {1, degree}
        found.append(cut.pictures[0])
        assert not np.array_equal(cut.pictures[0], dense.pictures[0])
    assert np.array_equal(*found)


def test_a_form_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="patch"):
        Workers(count=1, degree=2, form="patches")  # type: ignore[arg-type]
