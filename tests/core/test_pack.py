"""The layout of packs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musiva.core.pack import ROW_ALIGN, Pack, Rows, bucket, patchify, unpatchify

GRIDS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6
)


@given(st.integers(0, 100_000))
def test_a_bucket_holds_the_rows_and_adds_little(rows: int) -> None:
    size = bucket(rows)
    assert size >= rows
    assert size % ROW_ALIGN == 0
    assert size - rows < ROW_ALIGN or size - rows <= rows / 32
    assert bucket(size) == size


@given(GRIDS)
def test_every_token_has_one_row_in_order(grids) -> None:
    rows = Rows.build(grids)
    for i, (segment, grid) in enumerate(zip(rows.segments, grids, strict=True)):
        assert segment.start % ROW_ALIGN == 0
        real = rows.segment_T.eq(i) & rows.token_T.ge(0)
        assert rows.token_T[real].tolist() == list(range(grid[0] * grid[1] * grid[2]))
        assert real.nonzero().flatten()[0] == segment.start
    assert rows.num_rows == bucket(sum(s.pitch for s in rows.segments))


@given(GRIDS, st.sampled_from(["sample", "frame", "column", (2, 3)]))
def test_groups_part_the_tokens_of_each_sample(grids, over) -> None:
    from musiva.ops.attention.reference import group_index

    rows = Rows.build(grids)
    seen = torch.cat([group_index(g).flatten() for g in rows.groups(over)])
    assert sorted(seen.tolist()) == (rows.token_T >= 0).nonzero().flatten().tolist()
    for group in rows.groups(over):
        for members in group_index(group):
            assert set(rows.segment_T[members].tolist()) == {group.segment}
            tokens = rows.token_T[members]
            assert tokens.tolist() == sorted(tokens.tolist())
            _, height, width = grids[group.segment]
            if over == "frame":
                assert len(set((tokens // (height * width)).tolist())) == 1
            if over == "column":
                assert len(set((tokens % (height * width)).tolist())) == 1


@given(GRIDS, st.randoms(use_true_random=False))
def test_take_keeps_owner_and_place(grids, draw) -> None:
    rows = Rows.build(grids)
    assert rows.full is rows
    assert torch.equal(rows.source_T[rows.token_T >= 0], (rows.token_T >= 0).nonzero()[:, 0])
    tokens = [
        None
        if draw.random() < 0.2
        else torch.tensor(sorted(draw.sample(range(s.length), draw.randint(0, s.length)))).long()
        for s in rows.segments
    ]
    part = rows.take(tokens)
    assert part.full is rows
    assert all(s.start % ROW_ALIGN == 0 for s in part.segments)
    assert part.num_rows == bucket(sum(s.pitch for s in part.segments))
    for s, whole, chosen in zip(part.segments, rows.segments, tokens, strict=True):
        span = slice(s.start, s.start + s.length)
        expected = torch.arange(whole.length) if chosen is None else chosen
        assert torch.equal(part.token_T[span], expected)
        assert torch.equal(rows.token_T[part.source_T[span]], expected)
        assert torch.equal(rows.segment_T[part.source_T[span]], part.segment_T[span])
        assert (part.token_T[span.stop : s.start + s.pitch] == -1).all()
    if all(s.length == whole.length for s, whole in zip(part.segments, rows.segments, strict=True)):
        assert part is rows
    else:
        with pytest.raises(RuntimeError, match="taken from this pack"):
            part.groups("sample")
    again = part.take([None] * len(tokens))
    assert torch.equal(again.token_T, part.token_T)
    assert again.layout == part.layout


def test_a_segment_of_which_all_tokens_were_taken_is_complete() -> None:
    rows = Rows.build([(1, 2, 3), (1, 1, 4)], owners=["a", "b"])
    part = rows.take([torch.arange(6), torch.tensor([1, 2])])
    assert part.tokens[0] is None
    assert part.tokens[1].tolist() == [1, 2]
    assert not part.complete
    assert [s.owner for s in part.segments] == ["a", "b"]
    assert rows.take([torch.arange(6), None]) is rows
    assert part.level(1).tokens[0] is None
    # Both coarse tokens of the second segment have a row under them.
    assert part.level(1) is rows.level(1)


def test_rows_as_a_layout_without_places() -> None:
    rows = Rows.build([(1, 2, 9), (1, 1, 4)])
    part = rows.take([torch.tensor([1, 4, 5]), None])
    flat = part.unplaced()
    assert flat.complete
    assert flat.num_rows == part.num_rows
    assert [s.grid for s in flat.segments] == [(1, 1, 3), (1, 1, 4)]
    assert [s.start for s in flat.segments] == [s.start for s in part.segments]


def test_only_some_branches_stay_where_they_stand() -> None:
    pack = Pack.build([(1, 2, 3), (1, 4, 4), (1, 3, 3)], [5, 6, 7])
    part = pack.take({"image": [None, torch.tensor([2, 7]), None]})
    only = part.only([True, False, True])
    assert only is part.only((True, False, True))
    assert [s.length for s in only.image.segments] == [6, 0, 9]
    assert [s.length for s in only.streams["text"].segments] == [5, 0, 7]
    assert [s.start for s in only.image.segments] == [s.start for s in part.image.segments]
    assert only.image.num_rows == part.image.num_rows
    with pytest.raises(RuntimeError, match="taken from this pack"):
        part.only([False, True, True])


def test_constants_are_looked_up_by_the_rows_in_hand() -> None:
    rows = Rows.build([(1, 2, 3), (1, 1, 4)])
    part = rows.take([torch.tensor([1, 4]), None])
    other = rows.take([torch.tensor([0, 4]), None])
    for one, first in ((rows, range(6)), (part, (1, 4)), (other, (0, 4))):
        found = one.lookup(lambda grid: torch.arange(grid[1] * grid[2]) + 10 * grid[2])
        values = [value for value in found.tolist() if value]
        assert values == [*(30 + token for token in first), 40, 41, 42, 43]
    # Equal counts are not equal rows.
    assert len({rows.layout, part.layout, other.layout}) == 3


def test_content_is_known_only_where_every_segment_says() -> None:
    assert Rows.build([(1, 1, 3)] * 2, ["a", None]).content is None
    one, two = (Rows.build([(1, 1, 3)], [key]) for key in "ab")
    assert one.layout == two.layout
    assert one.content != two.content


def test_segments_of_streams_belong_together() -> None:
    with pytest.raises(ValueError, match="one segment per sample branch"):
        Pack({"image": Rows.build([(1, 2, 2)]), "text": Rows.build([(1, 1, 3)] * 2)})


@pytest.mark.parametrize("grid", [(1, 5, 7), (2, 4, 3), (1, 1, 1)])
def test_levels_map_rows_by_place(grid) -> None:
    pack = Pack.build([grid, (1, 6, 6)])
    frames, height, width = grid
    parent_T = pack.parents(0, 1)
    coarse = pack.level(1).image
    assert coarse.segments[0].grid == (frames, -(-height // 2), -(-width // 2))
    for row in range(frames * height * width):
        f, y, x = row // (height * width), row // width % height, row % width
        _, ch, cw = coarse.segments[0].grid
        assert parent_T[row] == (f * ch + y // 2) * cw + x // 2


@pytest.mark.parametrize("patch", [(1, 1, 1), (1, 2, 2), (1, 3, 2), (2, 2, 1)])
def test_patches_come_back_and_remainders_are_dropped(patch) -> None:
    shape = (3, 4, 7, 9) if patch[0] > 1 else (3, 7, 9)
    latent = torch.randn(shape)
    tokens_LC, grid = patchify(latent, patch)
    back = unpatchify(tokens_LC, grid, patch, latent.ndim)
    kept = tuple(slice(0, n) for n in back.shape)
    assert torch.equal(back, latent[kept])
    assert tokens_LC.shape == (grid[0] * grid[1] * grid[2], 3 * patch[0] * patch[1] * patch[2])


def test_gather_and_split_are_inverse() -> None:
    pack = Pack.build([(1, 3, 5), (1, 2, 2)], [4, 0])
    parts = [torch.randn(15, 6), torch.randn(4, 6)]
    packed_TD = pack.gather(parts)
    assert all(torch.equal(a, b) for a, b in zip(pack.split(packed_TD), parts, strict=True))
    assert float(packed_TD.sum()) == pytest.approx(float(sum(p.sum() for p in parts)), abs=1e-4)
    assert pack.split(pack.gather([torch.randn(4, 2), torch.randn(0, 2)], "text"), "text")[
        1
    ].shape == (0, 2)
