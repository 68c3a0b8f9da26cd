"""What a calibration promises of the pictures that it has seen."""

from __future__ import annotations

import random

import pytest

from musiva.perf.calibration.table import kept_by_most


@pytest.mark.parametrize(("count", "below"), [(8, 0), (48, 0), (96, 2), (288, 10)])
def test_as_many_may_miss_it_as_chance_allows(count: int, below: int) -> None:
    decibels = [float(i) for i in range(count)]
    random.Random(0).shuffle(decibels)
    assert kept_by_most(decibels) == below


def test_it_is_kept_four_times_in_five() -> None:
    """Over draws of some pictures, by 95 % of all pictures there are."""
    rng = random.Random(1)
    for count in (48, 96, 200):
        # Of uniform numbers a share x is below x.
        kept = [kept_by_most([rng.random() for _ in range(count)]) <= 0.05 for _ in range(2000)]
        assert 0.79 < sum(kept) / len(kept) < 0.94
