"""Labels under view algebra."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musiva.compiler.labels import (
    Axis,
    Joint,
    Layout,
    Refine,
    Unlabelled,
    broadcast,
    extents,
    features,
    regroup,
    tokens,
    unify,
    unknown,
)

ROWS, COLUMNS, FRAMES = (Axis(n, e, True) for n, e in (("rows", 5), ("columns", 7), ("frames", 3)))
WORDS = Axis("words", 11, True)
WIDTH = Axis("width", 24)


def names(layout: Layout) -> list[tuple[str, ...]]:
    return [tokens(label) for label in layout]


def test_a_view_merges_and_splits() -> None:
    merged = regroup(((), (FRAMES,), (ROWS,), (COLUMNS,), (WIDTH,)), (3, 35, 24))
    assert names(merged) == [("frames",), ("rows", "columns"), ()]
    heads = regroup(merged, (1, 105, 4, 6))
    assert names(heads) == [(), ("frames", "rows", "columns"), (), ()]
    assert names(regroup(heads, (3, 5, 7, 24))) == [("frames",), ("rows",), ("columns",), ()]


def test_places_within_tokens_stay_with_their_axis() -> None:
    layout = ((), (WIDTH,), (ROWS, Axis("place", 2)), (COLUMNS, Axis("place", 2)))
    cut = regroup(layout, (1, 24, 5, 2, 7, 2))
    assert names(cut) == [(), (), ("rows",), (), ("columns",), ()]
    assert [features(label) for label in layout] == [1, 24, 2, 2]


def test_cutting_tokens_asks_for_places() -> None:
    with pytest.raises(Refine) as caught:
        regroup(((Axis("rows", 10, True),),), (5, 2))
    assert (caught.value.axis, caught.value.inner) == ("rows", 2)


def test_joint_tokens_stay_together() -> None:
    joint = Joint(((WORDS,), (ROWS, COLUMNS)))
    assert names(regroup(((), joint, (WIDTH,)), (1, 46, 4, 6)))[1] == ("words", "rows", "columns")
    for shape in ((2, 23, 24), (46 * 24,)):
        with pytest.raises(Unlabelled):
            regroup(((), joint, (WIDTH,)), shape)


def test_no_view_has_other_extents() -> None:
    for shape in ((4, 6, 4), (23,), (2, 12, 2), (48,)):
        with pytest.raises(Unlabelled):
            regroup(((WIDTH,),), shape)


@given(st.lists(st.sampled_from([2, 3, 4, 5, 6]), min_size=1, max_size=5), st.randoms())
def test_every_view_can_be_undone(sizes: list[int], draw: object) -> None:
    layout = tuple((Axis(f"a{i}", n),) for i, n in enumerate(sizes))
    cuts = sorted({draw.randint(0, len(sizes)) for _ in range(2)} | {0, len(sizes)})  # type: ignore[attr-defined]
    shape = [math.prod(sizes[a:b]) for a, b in pairwise(cuts)]
    there = regroup(layout, shape)
    assert extents(there) == tuple(shape)
    assert regroup(there, sizes) == layout


def test_dimensions_meet() -> None:
    image = ((), (ROWS, COLUMNS), (WIDTH,))
    assert broadcast([image, ((WIDTH,),)]) == image
    assert broadcast([((), unknown(35, varies=True), ()), image]) == image
    assert unify(unknown(24, varies=False), (WIDTH,)) == unknown(24, varies=False)
    for other in (((COLUMNS, ROWS)), (Axis("x", 35),), (WORDS,)):
        with pytest.raises(Unlabelled):
            unify((ROWS, COLUMNS), other)
