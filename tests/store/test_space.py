"""Free bytes, and the pages cut out of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musiva.store.space import Extent, Space, byte_ranges

STEPS = st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.sampled_from([3, 4, 8])))


def test_pages_are_consecutive_where_an_extent_is_long_enough() -> None:
    space = Space(80)
    assert space.take(Extent(2, 8)) == (0, 1)
    assert space.take(Extent(1, 8)) == (2,)
    assert space.take(Extent(2, 8)) == (3, 4)
    space.give((0, 1), 8)
    space.give((3, 4), 8)
    assert space.take(Extent(3, 8)) == (3, 4, 5)
    assert space.take(Extent(5, 8)) == (0, 1, 6, 7, 8)
    assert space.take(Extent(2, 8)) is None
    assert space.ranges == ((72, 80),)
    assert space.num_free == 8


def test_pages_of_other_sizes_begin_at_multiples_of_theirs() -> None:
    space = Space(40)
    assert space.take(Extent(1, 6)) == (0,)
    assert space.take(Extent(3, 8)) == (1, 2, 3)
    assert space.ranges == ((6, 8), (32, 40))
    assert space.take(Extent(2, 8)) is None
    assert space.take(Extent(2, 2)) == (16, 17)
    assert space.take(Extent(3, 2)) == (3, 18, 19)
    assert space.num_free == 0


def test_runs_of_pages_are_joined() -> None:
    assert list(byte_ranges((1, 2, 5, 7, 8), 10)) == [(10, 30), (50, 60), (70, 90)]


def test_a_copy_leaves_the_first_one_alone() -> None:
    space = Space(16)
    assert space.copy().take(Extent(2, 8)) == (0, 1)
    assert space.ranges == ((0, 16),)


def test_what_is_free_is_not_freed_and_what_is_taken_not_taken() -> None:
    space = Space(40)
    space.claim((1, 2), 8)
    with pytest.raises(AssertionError, match="bytes 16 to 32 are not free"):
        space.claim((2, 3), 8)
    for pages in ((0,), (0, 1), (2, 3), (3,)):
        with pytest.raises(AssertionError, match="free already"):
            space.give(pages, 8)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.data())
def test_no_byte_is_lost_or_given_twice(steps, data) -> None:
    size = 50
    space, held = Space(size), []
    for takes, count, page_bytes in steps:
        extent = Extent(count, page_bytes)
        used = {b for pages, n in held for p in pages for b in range(p * n, p * n + n)}
        if takes or not held:
            pages = space.take(extent)
            whole = [
                p
                for p in range(size // page_bytes)
                if used.isdisjoint(range(p * page_bytes, (p + 1) * page_bytes))
            ]
            runs = [whole[i : i + count] for i in range(len(whole) - count + 1)]
            runs = [run for run in runs if run[-1] - run[0] == count - 1]
            expected = runs[0] if runs else whole[:count] if len(whole) >= count else None
            assert pages == (None if expected is None else tuple(expected))
            if pages is not None:
                held.append((pages, page_bytes))
        else:
            space.give(*held.pop(data.draw(st.integers(0, len(held) - 1))))
        taken = [(*r, "held") for pages, n in held for r in byte_ranges(pages, n)]
        space.check(taken)
        assert space.num_free == size - sum(stop - start for start, stop, _ in taken)


@pytest.mark.parametrize(
    ("free", "taken", "told"),
    [
        ([(0, 8), (8, 16)], [], "free ranges meet at byte 8"),
        ([(0, 16)], [(8, 16, "a")], "belong to no one and to a"),
        ([(12, 16)], [(0, 8, "a"), (4, 12, "b")], "from 4 on belong to a and to b"),
        ([(0, 4)], [(8, 16, "a")], "bytes 4 to 8 are lost"),
        ([(0, 8)], [], "end at 8, the arena at 16"),
        ([(0, 0), (4, 16)], [(0, 4, "a")], "an empty range of no one at byte 0"),
    ],
)
def test_a_broken_space_is_found(free, taken, told: str) -> None:
    space = Space(16)
    space._free = free
    with pytest.raises(AssertionError, match=told):
        space.check(taken)
