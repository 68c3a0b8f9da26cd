"""Choosing tiles: the rules that no score breaks, and the two policies that do it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musiva.core.errors import InvalidInput
from musiva.core.types import Action
from musiva.policy import Never, Ras, Refine, TilePolicy, Trip, build_policy
from musiva.policy.tiles import aged, favoured, newest, top_share, with_neighbours, with_old

SCORES = st.lists(st.floats(0, 1e3), min_size=1, max_size=30)


def trip_of(policy: TilePolicy, evaluations: int, grid=(1, 6, 8)) -> Trip:
    places = tuple(1.0 - i / evaluations for i in range(evaluations))
    return Trip(places, (1.0,) * evaluations, (0.0,) * evaluations).tiled(grid, policy.tile)


@given(SCORES, st.floats(0, 1))
def test_the_top_share_is_as_large_as_asked_and_nobody_left_out_scores_more(scores, share) -> None:
    chosen = top_share(scores, share)
    inside = [s for s, there in zip(scores, chosen, strict=True) if there]
    outside = [s for s, there in zip(scores, chosen, strict=True) if not there]
    assert len(inside) == max(math.ceil(share * len(scores)), 1)
    assert not outside or max(outside) <= min(inside)


def test_of_equals_the_first_is_chosen() -> None:
    assert top_share((1.0, 2.0, 2.0, 2.0), 0.5) == (False, True, True, False)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.data())
def test_neighbours_are_all_tiles_within_the_rings(rows, columns, rings, data) -> None:
    count = rows * columns
    chosen = tuple(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    found = with_neighbours(chosen, (rows, columns), rings)
    for i in range(count):
        near = any(
            abs(i // columns - j // columns) <= rings and abs(i % columns - j % columns) <= rings
            for j in range(count)
            if chosen[j]
        )
        assert found[i] == near


@given(st.integers(1, 12), st.integers(1, 5), st.data())
def test_no_tile_grows_older_than_the_cap(count: int, max_age: int, data) -> None:
    ages = (0,) * count
    masks = st.lists(st.booleans(), min_size=count, max_size=count)
    for mask in data.draw(st.lists(st.none() | masks, max_size=20)):
        chosen = None if mask is None else with_old(tuple(mask), ages, max_age)
        if chosen is not None:
            assert all(there for there, wanted in zip(chosen, mask, strict=True) if wanted)
            ready = zip(chosen, mask, ages, strict=True)
            assert all(age >= max_age for there, wanted, age in ready if there and not wanted)
        ages = aged(ages, chosen)
        assert max(ages) <= max_age


@given(SCORES, st.data())
def test_hysteresis_keeps_a_choice_until_another_is_better_by_the_gain(scores, data) -> None:
    before = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    chosen = top_share(favoured(scores, tuple(before), 0.5), 0.5)
    for i, one in enumerate(scores):
        for j, other in enumerate(scores):
            if before[i] and not chosen[i] and chosen[j]:
                assert before[j] or other >= 1.5 * one
    assert top_share(favoured(scores, (False,) * len(scores), 0.5), 0.5) == top_share(scores, 0.5)


def test_what_was_measured_last_stays() -> None:
    assert newest((1.0, None, 2.0), (None, 3.0, 4.0)) == (1.0, 3.0, 4.0)


def run(policy: Ras | Refine, trip: Trip, measure) -> list[Action]:
    memory, actions = policy.begin(trip), []
    for evaluation in range(trip.num_evaluations):
        action = policy.act(trip, memory, evaluation)
        actions.append(action)
        if action.compute:
            tiles = action.tiles or (True,) * len(trip.tile_tokens)
            found = tuple(measure(i) if there else None for i, there in enumerate(tiles))
            measured = {policy.probes[0]: found}
            memory = policy.observe(trip, memory, evaluation, action, measured)
    return actions


def test_ras_computes_its_share_full_ones_on_time_and_what_starves() -> None:
    policy = Ras(warmup=2, share=0.25, interval=6, max_age=3, starvation=0.0, side=2)
    trip = trip_of(policy, 14)
    actions = run(policy, trip, lambda i: 1.0 + i)
    assert [i for i, action in enumerate(actions) if action.tiles is None] == [0, 1, 7, 13]
    assert all(action.compute and action.order == 0 for action in actions)
    lowest = tuple(i < 3 for i in range(12))
    # Those that were held three times are computed as well: all but the lowest.
    others = (True,) * 12
    assert [action.tiles for action in actions[2:7]] == [lowest, lowest, lowest, others, lowest]
    (highest,) = {a.tiles for a in run(Ras(2, 0.25, 6, 9, 0.0, varied=1), trip, float)[2:7]}
    assert highest == tuple(i >= 9 for i in range(12))


def test_starvation_lets_held_tiles_pass_others() -> None:
    policy = Ras(warmup=1, share=0.5, interval=100, max_age=100, starvation=0.4, side=4)
    trip = trip_of(policy, 8, (1, 4, 8))
    chosen = [action.tiles for action in run(policy, trip, lambda i: math.exp(i))[1:]]
    # The logarithms are 0 and 1, and 0.4 is added for every evaluation that one was held.
    assert chosen == [(True, False)] * 3 + [(False, True)] + [(True, False)] * 3


@given(st.integers(1, 6), st.floats(0, 1), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
def test_ras_never_lets_a_tile_grow_older_than_its_cap(warmup, share, interval, age, seed) -> None:
    policy = Ras(warmup=warmup, share=share, interval=interval, max_age=age, side=3)
    trip = trip_of(policy, 25)
    ages = (0,) * len(trip.tile_tokens)
    for action in run(policy, trip, lambda i: (i * 7919 + seed * 31) % 11 / 10):
        ages = aged(ages, action.tiles)
        assert max(ages) <= min(age, interval)


def test_refine_computes_the_worst_tiles_half_way() -> None:
    policy = Refine(interval=4, warmup=3, share=0.25, side=2)
    trip = trip_of(policy, 14)
    actions = run(policy, trip, lambda i: (i * 5) % 12)
    full = [i for i, action in enumerate(actions) if action.full]
    some = {i: action.tiles for i, action in enumerate(actions) if action.tiles}
    assert full == [0, 1, 2, 6, 10]
    assert list(some) == [4, 8, 12]
    worst = tuple((i * 5) % 12 >= 9 for i in range(12))
    assert set(some.values()) == {worst}
    assert all(not a.compute for i, a in enumerate(actions) if i not in full and i not in some)
    wider = run(Refine(border=1), trip, lambda i: (i * 5) % 12)[4].tiles
    assert wider == with_neighbours(worst, (3, 4))


def test_refine_forecasts_until_errors_are_known() -> None:
    policy = Refine(interval=4, warmup=1)
    trip = trip_of(policy, 6)
    memory = policy.observe(trip, policy.begin(trip), 0, Action(), {})
    assert policy.act(trip, memory, 2) == Action(compute=False, order=1)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("ras:share=1.5", "share a number from 0 to 1"),
        ("ras:warmup=0", "warmup a whole number from 1"),
        ("ras:varied=2", "from 0 to 1"),
        ("refine:interval=0.5", "interval a whole number"),
        ("refine:order=3", "from 0 to 2"),
        ("refine:side=0", "side a whole number from 1"),
    ],
)
def test_fields_are_checked(spec: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as raised:
        build_policy(spec)
    assert raised.value.field == "policy"


@pytest.mark.parametrize("tile", [4, (4,), (0, 4), (2.0, 4), None, (True, 4)])
def test_a_tile_is_two_whole_numbers(tile: object) -> None:
    made = type("Odd", (Never,), {"tile": tile})
    with pytest.raises(InvalidInput, match="tile \\(height, width\\)"):
        build_policy("odd", {"odd": made})


def test_probes_of_tiles_are_for_policies_with_tiles() -> None:
    made = type("Odd", (Never,), {"probes": ("tile_error",)})
    with pytest.raises(InvalidInput, match="probes out of forecast_error"):
        build_policy("odd", {"odd": made})
    build_policy("fine", {"fine": type("Fine", (made,), {"tile": (2, 2)})})
