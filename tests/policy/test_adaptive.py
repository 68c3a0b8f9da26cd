"""The policy that computes as many evaluations as a picture needs."""

from __future__ import annotations

from itertools import pairwise

import pytest

from musiva.core.errors import InvalidInput
from musiva.policy import Adaptive, Trip, build_policy, floor_db


def trip_of(total: int, *, calibrated: bool = True) -> Trip:
    times = tuple(i / total for i in range(total))
    places = tuple(1 - t for t in times)
    return Trip(places, (0.0,) * total, times, calibrated=calibrated)


def computed(policy: Adaptive, trip: Trip, surprise: float) -> list[int]:
    """The evaluations that are computed when every forecast is wrong by that much."""
    memory, found = policy.begin(trip), []
    for evaluation in range(trip.num_evaluations):
        action = policy.act(trip, memory, evaluation)
        if action.compute:
            told = {"surprise": surprise} if found else {}
            memory = policy.observe(trip, memory, evaluation, action, told)
            found.append(evaluation)
        else:
            assert action.calibrated
    return found


@pytest.mark.parametrize("total", [10, 28, 50, 200])
def test_gaps_are_as_wide_as_the_tolerance(total: int) -> None:
    found = computed(Adaptive(tolerance=0.2), trip_of(total), 1.0)
    assert found == pytest.approx([i * total / 5 for i in range(5)], abs=0.7)


def test_surprises_bring_more_evaluations() -> None:
    counts = [len(computed(Adaptive(), trip_of(50), s)) for s in (0.2, 0.5, 1.0, 2.0, 5.0, 100.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2] < counts[4] < counts[5]
    assert computed(Adaptive(), trip_of(50), 1e9) == [0, 6, *range(7, 50)]


def test_caution_is_for_those_that_surprise() -> None:
    trip, cautious = trip_of(50), Adaptive(caution=1.0)
    for calm in (0.2, 0.9, 1.0):
        assert computed(cautious, trip, calm) == computed(Adaptive(), trip, calm)
    for hard in (1.5, 2.0, 5.0):
        assert computed(cautious, trip, hard) == computed(Adaptive(gain=1.2), trip, hard)
        assert len(computed(cautious, trip, hard)) > len(computed(Adaptive(), trip, hard))


def test_no_gap_is_wider_than_the_cap() -> None:
    trip = trip_of(100)
    found = computed(Adaptive(tolerance=0.25, max_gap=0.26), trip, 1e-6)
    assert max(b - a for a, b in pairwise([*found, 100])) <= 26
    assert len(computed(Adaptive(tolerance=0.25, max_gap=0.5), trip, 1e-6)) < len(found)


def test_no_tolerance_is_the_dense_run() -> None:
    assert computed(Adaptive(tolerance=0.0), trip_of(28), 1.0) == list(range(28))


def test_a_model_without_calibration_is_refused() -> None:
    with pytest.raises(InvalidInput, match="musiva calibrate"):
        Adaptive().begin(trip_of(28, calibrated=False))


@pytest.mark.parametrize(
    "spec", ["tolerance=-0.1", "tolerance=2", "gain=3", "max_gap=nan", "caution=-1"]
)
def test_fields_have_limits(spec: str) -> None:
    with pytest.raises(InvalidInput, match="a number from 0 to"):
        build_policy(f"adaptive:{spec}")


def test_a_quality_is_a_floor_in_decibels() -> None:
    assert [floor_db(q) for q in (1, 50, 60, 70, 80, 90, 99)] == [16, 26, 28, 30, 32, 36, 45]
    assert floor_db(75) == pytest.approx(31)
    assert floor_db(95) == pytest.approx(41)
