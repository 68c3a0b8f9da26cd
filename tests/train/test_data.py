"""Order, keys and packs: pure functions of (seed, sample, epoch)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from musiva.core.errors import InvalidInput
from musiva.train import Cursor, Draw, Order, fill_pack, keyed_rng


def read(order: Order, count: int, cursor: Cursor | None = None) -> tuple[list[Draw], Cursor]:
    cursor = cursor or Cursor()
    draws = []
    for _ in range(count):
        draw, cursor = order.next(cursor)
        draws.append(draw)
    return draws, cursor


def test_an_epoch_holds_every_sample_once() -> None:
    order = Order.Config(weights=[1.0] * 10, seed=3).build()
    draws, _ = read(order, 30)
    for epoch in range(3):
        part = draws[10 * epoch : 10 * epoch + 10]
        assert sorted(d.sample for d in part) == list(range(10))
        assert {d.epoch for d in part} == {epoch}
    assert [d.sample for d in draws[:10]] != [d.sample for d in draws[10:20]]


def test_weights_set_the_shares() -> None:
    order = Order.Config(weights=[2.0, 1.0, 0.25, 0.0], seed=1).build()
    draws, _ = read(order, 3250)
    counts = np.bincount([d.sample for d in draws], minlength=4)
    assert counts[3] == 0
    assert abs(counts[0] - 2 * counts[1]) <= 2
    assert 200 <= counts[2] <= 300
    assert len(set(draws)) == len(draws)  # several visits in an epoch have keys of their own


def test_a_cursor_is_all_that_resuming_needs() -> None:
    def config() -> Order:
        return Order.Config(weights=[1.5] * 7, seed=5).build()

    straight, _ = read(config(), 60)
    head, cursor = read(config(), 23)
    tail, _ = read(config(), 37, cursor)
    assert head + tail == straight


@pytest.mark.parametrize("weights", [[], [0.0], [-1.0, 2.0], [float("nan")]])
def test_bad_weights(weights: list[float]) -> None:
    with pytest.raises(InvalidInput, match="weights"):
        Order.Config(weights=weights, seed=0).build()


def test_keys_are_independent() -> None:
    keys = [(0, Draw(0, 0), "a"), (1, Draw(0, 0), "a"), (0, Draw(1, 0), "a"), (0, Draw(0, 1), "a")]
    keys += [(0, Draw(0, 0, 1), "a"), (0, Draw(0, 0), "b")]
    streams = [tuple(keyed_rng(*key).integers(0, 2**60, 3)) for key in keys]
    assert len(set(streams)) == len(streams)
    assert streams[0] == tuple(keyed_rng(*keys[0]).integers(0, 2**60, 3))


def test_packs_fill_the_budget_and_lose_nothing() -> None:
    order = Order.Config(weights=[1.0] * 9, seed=2).build()

    def rows_of(draw: Draw) -> int:
        return (16, 64, 144)[draw.sample % 3]

    cursor, packs = Cursor(), []
    for _ in range(12):
        draws, cursor = fill_pack(order, cursor, rows_of, 300)
        packs.append(draws)
    flat = [draw for pack in packs for draw in pack]
    assert flat == read(order, len(flat))[0]
    for pack, after in pairwise(packs):
        rows = sum(map(rows_of, pack))
        assert rows <= 300 < rows + rows_of(after[0])


def test_a_sample_above_the_budget_is_refused() -> None:
    order = Order.Config(weights=[1.0], seed=2).build()
    with pytest.raises(InvalidInput, match=r"row_budget.*at least 64"):
        fill_pack(order, Cursor(), lambda draw: 64, 63)
