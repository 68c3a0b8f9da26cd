"""The policy that repeats what load has chosen once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musiva.core.errors import InvalidInput
from musiva.core.types import COMPUTE, Action
from musiva.policy import Marked, Trip, build_policy, marked_as
from musiva.policy.adaptive import FIRST, HELD


def trip_of(total: int, *, calibrated: bool = True) -> Trip:
    times = tuple(i / total for i in range(total))
    return Trip(times, times, times, guided=True, calibrated=calibrated, coarse=True)


@given(st.lists(st.booleans(), max_size=80), st.booleans())
def test_a_journal_comes_back(computed: list[bool], coarse: bool) -> None:
    journal = [FIRST if coarse else COMPUTE, *(COMPUTE if c else HELD for c in computed)]
    policy, trip = build_policy(marked_as(journal)), trip_of(len(journal))
    memory = policy.begin(trip)
    assert [policy.act(trip, memory, i) for i in range(len(journal))] == journal


@pytest.mark.parametrize("fields", ["at=2", "at=0", "at=-1", "at=1.5", "at=1,coarse=2"])
def test_what_marks_no_first_evaluation_is_refused(fields: str) -> None:
    with pytest.raises(InvalidInput, match=r"^policy: got"):
        build_policy(f"marked:{fields}")


def test_without_calibration_only_the_dense_run_can_be_marked() -> None:
    trip = trip_of(4, calibrated=False)
    Marked(at=0b1111).begin(trip)
    with pytest.raises(InvalidInput, match="musiva calibrate"):
        Marked(at=0b1011).begin(trip)


def test_more_bits_than_evaluations_are_of_no_account() -> None:
    policy, trip = Marked(at=(1 << 40) - 1), trip_of(3)
    assert [policy.act(trip, policy.begin(trip), i) for i in range(3)] == [Action()] * 3
