"""Samples of which load says by how many ranks they are computed: together, or by one of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from musiva.core.types import Event, Level
from musiva.parallel import Form, spread
from tests.contract.test_policies import ACTIVE, bench_of, options
from tests.contract.test_ranks import CLOSE, latent_of, ranked
from tests.contract.test_resumed import Told
from tests.stepping import Bench

# Of requests, the first of which is told of.
NAMES = ("r", "s", "t", "u")
POLICIES = ("never", "adaptive", "interval")
SPECS = {name: ACTIVE.get(name, name) for name in POLICIES}
CASES = [
    ("cross", "adaptive", "ulysses"),
    ("joint", "never", "branches"),
    ("video", "interval", "dynamic"),
    ("unet", "adaptive", "ulysses"),
    ("joint", "adaptive", "patch"),
]
REST = list(product(("cross", "joint"), POLICIES, ("ulysses", "branches")))


def cases() -> list[object]:
    every = dict.fromkeys([*CASES, *REST])
    return [
        pytest.param(*case, marks=() if case in CASES else (pytest.mark.matrix,)) for case in every
    ]


def submit(bench: Bench, model: str, policy: str, seed: int, **more: object) -> None:
    """A request of which load may choose the level."""
    asked = {**options(model, "euler", SPECS[policy]), "seed": seed, **more}
    levels = Level(SPECS[policy], 70), Level(SPECS[policy], 60)
    bench.submit(NAMES[seed], levels=levels, **asked)


def were_alone(event: Event) -> list[bool]:
    """At evaluations that computed."""
    return [action.alone for action in event.actions if action.compute]


@pytest.mark.parametrize(("model", "policy", "form"), cases())
def test_a_sample_that_one_rank_computes_is_as_with_one(
    model: str, policy: str, form: Form
) -> None:
    one = bench_of(model, "euler")
    for seed in (0, 1):
        submit(one, model, policy, seed)
    expected = dict(one.run())
    with ranked(model, "euler", 2, form) as bench:
        for seed in (0, 1):
            submit(bench, model, policy, seed)
        bench.run()
        assert not bench.failed()
        for seed in (0, 1):
            event = bench.made(NAMES[seed] + "/0")
            assert all(were_alone(event))
            assert np.array_equal(event.picture, expected[NAMES[seed] + "/0"])


@pytest.mark.parametrize(("model", "policy", "form"), cases())
def test_its_number_of_ranks_changes_as_others_come_and_is_done_again_as_it_was(
    model: str, policy: str, form: Form
) -> None:
    told = Told()
    with ranked(model, "euler", 2, form, told=told) as bench:
        submit(bench, model, policy, 0)
        bench.run(3)
        submit(bench, model, policy, 1)
        bench.run(5)
        resumption = told.resumption()
        bench.run()
        event = bench.made("r/0")
    computed = were_alone(event)
    assert True in computed
    assert False in computed
    assert resumption is not None
    with ranked(model, "euler", 2, form) as other:
        submit(other, model, policy, 0, resumed={0: resumption})
        submit(other, model, policy, 3)
        other.run()
        again = other.made("r/0")
    done = len(resumption.record.actions)
    assert again.actions[:done] == event.actions[:done]
    one = bench_of(model, "euler")
    submit(one, model, policy, 0)
    one.run()
    ours, theirs = latent_of(again), latent_of(one.made("r/0"))
    assert np.abs(ours - theirs).max() < CLOSE * max(1.0, np.abs(theirs).max())


def test_what_was_recorded_gives_the_same_bytes() -> None:
    """Also where nobody else is there, so that it would be shared."""
    told = Told()
    with ranked("joint", "euler", 2, told=told) as bench:
        for seed in (0, 1):
            submit(bench, "joint", "adaptive", seed)
        bench.run()
        event = bench.made("r/0")
    last = told.resumption()
    assert last is not None
    with ranked("joint", "euler", 2) as other:
        submit(other, "joint", "adaptive", 0, resumed={0: last})
        other.run()
        again = other.made("r/0")
    assert again.actions == event.actions
    assert np.array_equal(again.picture, event.picture)


def test_where_nothing_may_depend_on_load_all_ranks_share() -> None:
    with ranked("cross", "euler", 2) as bench:
        for seed in (0, 1):
            bench.submit(NAMES[seed], **options("cross", "euler", ACTIVE["adaptive"], seed))
        bench.run()
        assert not any(were_alone(bench.made("r/0")))


def test_too_few_for_all_ranks_are_shared() -> None:
    """Two ranks with three equal samples would wait for one of them."""
    with ranked("cross", "euler", 2) as bench:
        for seed in range(3):
            submit(bench, "cross", "never", seed)
        bench.run(2)
        actions = [bench.journal.actions[NAMES[seed] + "/0"] for seed in range(3)]
        assert not any(action.alone for several in actions for action in several)
        bench.run()


@pytest.mark.parametrize(
    ("work", "size", "expected"),
    [
        ([3, 3], 2, [0, 1]),
        ([1, 5, 2, 2], 2, [1, 0, 1, 1]),
        ([4], 3, [0]),
        ([], 2, []),
    ],
)
def test_work_is_spread_the_longest_first(work: list[int], size: int, expected: list[int]) -> None:
    assert spread(work, size) == expected
