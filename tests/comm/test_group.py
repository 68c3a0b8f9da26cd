"""Exchanges between ranks: threads and processes give the same, and count what they send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from musiva.comm import Group, LinkFigures, Lone, ThreadGroup, in_threads, launch
from musiva.core.errors import RankLost

Start = Callable[..., list[Any]]


def parts_of(rank: int, size: int) -> list[torch.Tensor]:
    """Of rank r for rank i: r + i numbers."""
    return [100.0 * rank + 10 * i + torch.arange(rank + i) for i in range(size)]


def exchanged(group: Group, dtype: torch.dtype) -> tuple[list[list[float]], LinkFigures]:
    parts = [part.to(dtype) for part in parts_of(group.rank, group.size)]
    found = group.exchange(parts, [(i + group.rank,) for i in range(group.size)])
    return [x.tolist() for x in found], group.meter.figures("ranks", "others")


def summed(group: Group) -> Sequence[float]:
    return group.sum(torch.tensor([0.1, 1e8, -1e8]) * (group.rank + 1)).tolist()


@pytest.mark.parametrize("start", [in_threads, launch])
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.matrix)], ids=str
)
def test_everyone_gets_what_was_sent(start: Start, dtype: torch.dtype) -> None:
    size = 3
    for rank, (found, told) in enumerate(start(exchanged, size, dtype)):
        assert found == [parts_of(i, size)[rank].to(dtype).tolist() for i in range(size)]
        others = sum(rank + i for i in range(size) if i != rank)
        assert told.sent_bytes == told.received_bytes == others * dtype.itemsize
        assert told.transfers == 1
        assert told.seconds > 0.0


def test_sums_have_the_same_bytes_on_every_rank() -> None:
    threads, processes = in_threads(summed, 3), launch(summed, 3)
    assert threads == processes
    assert threads[0] == threads[1] == threads[2]
    assert threads[0][0] == pytest.approx(0.6)


def test_one_rank_keeps_what_it_has() -> None:
    group = Lone()
    x = torch.randn(3)
    assert group.exchange([x], [(3,)])[0] is x
    assert group.sum(x) is x
    assert group.sent_bytes == 0


def fails(group: Group) -> None:
    if group.rank == 1:
        raise KeyError("mine")
    group.sum(torch.ones(1))


def test_a_rank_that_fails_ends_the_others() -> None:
    with pytest.raises(KeyError, match="mine"):
        in_threads(fails, 3)


def test_ranks_that_disagree_are_told() -> None:
    def wrong(group: Group) -> None:
        group.exchange([torch.ones(2)] * 2, [(3,)] * 2)

    with pytest.raises(ValueError, match="waits for"):
        in_threads(wrong, 2)


def split(group: Group) -> tuple[float, float, int, int]:
    """The second half meets twice as often as the first."""
    half = group.split(2)
    own = half.sum(torch.tensor([2.0**group.rank]))
    if group.rank >= group.size // 2:
        own = half.sum(own)
    every = group.sum(own)
    return own.item(), every.item(), half.sent_bytes, group.sent_bytes


def test_halves_do_not_wait_for_each_other_and_count_together() -> None:
    """One number of four bytes goes to the other one of a half each time, and to three at last."""
    small, large = (3.0, 54.0, 16, 16), (24.0, 54.0, 20, 20)
    assert in_threads(split, 4) == [small, small, large, large]
    assert Lone().split(1).size == 1


def test_a_rank_that_fails_ends_the_other_half_too() -> None:
    def body(group: Group) -> None:
        half = group.split(2)
        if group.rank == 3:
            raise KeyError("mine")
        for _ in range(100):
            half.sum(torch.ones(1))

    with pytest.raises(KeyError, match="mine"):
        in_threads(body, 4)


def test_halves_of_a_group_that_was_left_are_lost() -> None:
    groups = ThreadGroup.all_of(4)
    groups[3].leave()
    with pytest.raises(RankLost):
        groups[0].split(2).sum(torch.ones(1))
