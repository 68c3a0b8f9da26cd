"""Curves, their hulls and leads, on points of which the answer is plain."""

from __future__ import annotations

import math

import pytest

from musiva.perf.benches.curves import Point, hull, lead, share_at


def at(decibels: float, share: float, spread: float = 0.0) -> Point:
    pictures = (decibels - spread, decibels, decibels + spread)
    return Point("m", "s", pictures, pictures, (share,) * 3, (10 * share,) * 3)


def test_a_hull_leaves_out_what_is_dearer_and_no_better() -> None:
    points = [at(20, 0.1), at(25, 0.5), at(30, 0.2), at(30, 0.3), at(40, 0.8)]
    assert [x for x, _ in hull(points)] == [20, 30, 40]
    assert hull([]) == []


def test_between_settings_shares_grow_as_powers() -> None:
    points = [at(20, 0.1), at(40, 0.4)]
    assert share_at(points, 30) == pytest.approx(math.sqrt(0.1 * 0.4))
    assert share_at(points, 10) == pytest.approx(0.1)
    assert share_at(points, 41) is None
    assert share_at([], 30) is None


def test_a_lead_is_the_lower_one_and_needs_our_curve_whole() -> None:
    ours, rival = [at(28, 0.1), at(36, 0.2)], [at(28, 0.2), at(36, 0.3)]
    shares = [(share_at(rival, x), share_at(ours, x)) for x in (30, 35)]
    assert lead(ours, rival, (30, 35)) == pytest.approx(min(r / o for r, o in shares if r and o))
    assert lead(ours, [at(31, 0.5)], (30, 35)) == pytest.approx(0.5 / share_at(ours, 30))  # type: ignore[operator]
    assert lead([at(31, 0.1)], rival, (30, 35)) is None
    assert lead(ours, [], (30, 35)) is None


def test_a_part_has_its_own_mean_and_percentile() -> None:
    point = at(30, 0.2, spread=6)
    assert point.part([0, 1]).mean == pytest.approx(27)
    assert point.low == pytest.approx(24.6)
    assert point.part([2]).row()["psnr_p5"] == 36
