"""What it takes to have bytes from somewhere."""

from __future__ import annotations

import pytest

from musiva.store.haul import HALF_LIFE, Haul

FIRST, EACH, LARGE = 1e-3, 1e-9, 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def haul(clock: Clock) -> Haul:
    return Haul(FIRST, EACH, clock)


def test_before_anything_was_seen_it_is_what_was_said(haul: Haul) -> None:
    assert not haul.known
    assert haul.predicted(LARGE) == FIRST + EACH * LARGE


def test_it_comes_to_what_is_seen(haul: Haul) -> None:
    for _ in range(40):
        haul.saw(100, 0.02)
        haul.saw(LARGE, 0.02 + 1e-7 * LARGE)
    assert haul.known
    first, each = haul.rates
    assert first == pytest.approx(0.02, rel=0.01)
    assert each == pytest.approx(1e-7, rel=0.02)


def test_what_was_slow_is_tried_again(haul: Haul, clock: Clock) -> None:
    for _ in range(20):
        haul.saw(100, 4.0)
    slow = haul.predicted(100)
    assert slow > 3.0
    clock.now += HALF_LIFE
    assert haul.predicted(100) == pytest.approx(slow / 2, rel=0.01)
    clock.now += 20 * HALF_LIFE
    assert haul.predicted(100) == pytest.approx(FIRST, rel=0.01)


def test_a_failure_never_makes_it_look_faster(haul: Haul) -> None:
    before = haul.predicted(100)
    haul.failed(100, 1e-6)
    assert haul.predicted(100) == pytest.approx(before, rel=1e-3)
    haul.failed(100, 5.0)
    assert haul.predicted(100) > 0.9
    haul.failed(LARGE, 10.0)
    assert haul.predicted(LARGE) > 2.0
