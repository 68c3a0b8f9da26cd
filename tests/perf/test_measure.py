"""Timings with a clock of their own."""

from __future__ import annotations

import logging
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musiva.core.errors import Unavailable
from musiva.perf.measure import check_load, compare, percentile, upper_bound


class World:
    """A clock that moves by what each call costs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, *costs: float) -> None:
        self.now += costs[self.calls.count(name) % len(costs)]
        self.calls.append(name)


def test_the_median_ratio_of_pairs_that_take_turns() -> None:
    world = World()
    found = compare(
        lambda: world.call("ours", 1.0, 1.0, 9.0),
        lambda: world.call("theirs", 2.0),
        pairs=9,
        warmup=1,
        clock=world.clock,
    )
    assert (found.ratio, found.pairs) == (0.5, 9)
    assert (found.baseline_seconds, found.candidate_seconds) == (2.0, 1.0)
    assert found.ratio <= found.upper <= 4.5
    assert world.calls[2:8] == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=30))
def test_the_upper_bound_is_above_most_medians_and_repeatable(values: list[float]) -> None:
    bound = upper_bound(values)
    assert min(values) <= bound <= max(values)
    assert bound == upper_bound(values)
    if len(set(values)) == 1:
        assert bound == values[0]


def test_the_bound_narrows_with_more_pairs() -> None:
    few, many = [1.0, 2.0, 3.0] * 3, [1.0, 2.0, 3.0] * 100
    assert upper_bound(few) >= upper_bound(many) >= statistics.median(many)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 2), (51, 3), (90, 4), (100, 4)]
)
def test_percentiles_are_values_that_occurred(percent: float, expected: int) -> None:
    assert percentile([3, 1, 4, 2], percent) == expected


def test_a_busy_machine_is_refused_or_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    assert check_load(quick=False, load=lambda: 0.5) == 0.5
    with pytest.raises(Unavailable, match=r"load is 0\.51"):
        check_load(quick=False, load=lambda: 0.51)
    with caplog.at_level(logging.WARNING):
        assert check_load(quick=True, load=lambda: 3.0) == 3.0
    assert "load is 3.00" in caplog.text
