"""Tiles get a step of their own only where that is the cheaper way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from musiva.core.errors import InvalidInput
from musiva.core.types import Action
from musiva.policy import AdaptiveTiles, Trip, build_policy

ROWS, COLUMNS = 8, 8
TILES = ROWS * COLUMNS


def trip_of(total: int) -> Trip:
    times = tuple(i / total for i in range(total))
    places = tuple(1 - t for t in times)
    plain = Trip(places, (0.0,) * total, times, calibrated=True)
    return replace(plain, tiles=(ROWS, COLUMNS), tile_tokens=(4,) * TILES)


def journal(policy: AdaptiveTiles, trip: Trip, errors: tuple[float, ...]) -> list[Action]:
    """What is done when forecasts over a whole gap are always wrong by these errors, and those over
    half of one by 2 ** -1.05 of them.
    """
    memory, done, refined = policy.begin(trip), [], ()
    for evaluation in range(trip.num_evaluations):
        action = policy.act(trip, memory, evaluation)
        done.append(action)
        if not action.compute:
            continue
        told = {} if evaluation == 0 else {"surprise": 1.0, "tile_error": errors}
        if action.tiles is not None:
            refined = action.tiles
            found = zip(errors, refined, strict=True)
            told = {"tile_error": tuple(e if t else None for e, t in found)}
        elif refined:
            halves = zip(errors, refined, strict=True)
            told["tile_error"] = tuple(e * 2**-1.05 if t else e for e, t in halves)
            refined = ()
        memory = policy.observe(trip, memory, evaluation, action, told)
    return done


def test_errors_that_lie_everywhere_are_met_by_whole_evaluations() -> None:
    policy = AdaptiveTiles(tolerance=0.15)
    done = journal(policy, trip_of(50), (1.0,) * TILES)
    assert all(action.tiles is None for action in done)
    assert sum(action.compute for action in done) == 7


def test_errors_in_one_corner_are_met_there_and_gaps_are_longer() -> None:
    corner = tuple(10.0 if i in (0, 1, 8, 9) else 0.1 for i in range(TILES))
    done = journal(AdaptiveTiles(tolerance=0.15), trip_of(50), corner)
    partial = [action.tiles for action in done if action.tiles is not None]
    whole = sum(action.compute and action.tiles is None for action in done)
    assert len(partial) >= 2
    assert whole < 7
    assert all(tiles == tuple(i in (0, 1, 8, 9) for i in range(TILES)) for tiles in partial)


def test_the_middle_is_between_whole_evaluations() -> None:
    corner = tuple(10.0 if i < 4 else 0.1 for i in range(TILES))
    done = journal(AdaptiveTiles(tolerance=0.15), trip_of(50), corner)
    computed = [(i, a.tiles is not None) for i, a in enumerate(done) if a.compute]
    assert not any(first and second for (_, first), (_, second) in pairwise(computed))
    assert computed[0] == (0, False)


def test_no_errors_mean_no_choice() -> None:
    done = journal(AdaptiveTiles(), trip_of(28), (0.0,) * TILES)
    assert all(action.tiles is None for action in done)


def test_what_was_meant_for_tiles_and_computed_in_full_counts_as_such() -> None:
    policy, trip = AdaptiveTiles(tolerance=0.15), trip_of(50)
    corner = tuple(10.0 if i < 4 else 0.1 for i in range(TILES))
    memory = policy.observe(trip, policy.begin(trip), 0, Action(), {})
    at = policy._whole.following(trip, memory.progress)
    told = {"surprise": 1.0, "tile_error": corner}
    memory = policy.observe(trip, memory, at, Action(), told)
    assert memory.middle is not None
    assert policy.act(trip, memory, memory.middle).tiles == memory.tiles
    after = policy.observe(trip, memory, memory.middle, Action(calibrated=True), told)
    assert after.progress.computed == memory.progress.computed + 1
    assert after.refined == ()


@pytest.mark.parametrize("spec", ["side=0", "side=x", "tolerance=2", "worthwhile=3", "gain=-1"])
def test_fields_have_limits(spec: str) -> None:
    with pytest.raises(InvalidInput, match="policy"):
        build_policy(f"adaptive_tiles:{spec}")
