"""Policies with gates, without a device: what they ask for after what they are told."""

from __future__ import annotations

import math

import pytest

from musiva.core.errors import InvalidInput
from musiva.core.types import COMPUTE, GATES, Action, Gate
from musiva.policy import FirstBlock, Policy, TeaCache, Trip, build_policy


def trip_of(total: int) -> Trip:
    return Trip(tuple(range(total, 0, -1)), (0.0,) * total, tuple(i / total for i in range(total)))


def run(policy: Policy, changes: list[float]) -> str:
    """One letter an evaluation, whose change is given: "." full without a question, "f" full and
    "h" held after one.
    """
    trip, done = trip_of(len(changes)), ""
    memory = policy.begin(trip)
    (probe,) = policy.probes
    for evaluation, change in enumerate(changes):
        action = policy.act(trip, memory, evaluation)
        gate, action = action.gate, Action()
        if gate is None:
            done += "."
        elif gate.rescaled(change) < gate.threshold:
            done, action = done + "h", Action(held=GATES[probe])
        else:
            done += "f"
        told = {probe: change} if evaluation else {}
        memory = policy.observe(trip, memory, evaluation, action, told)
    return done


def test_a_first_block_is_asked_after_the_warm_up_and_until_the_cap() -> None:
    policy = FirstBlock(threshold=0.1, warmup=2, max_held=3)
    assert run(policy, [0.0] * 12) == "..hhh.hhh.hh"
    changes = [0.0, 0.0, 0.09, 0.1, 0.05, 0.2, math.inf, 0.0999]
    assert run(policy, changes) == "..hfhffh"
    assert policy.act(trip_of(9), 0, 1) == COMPUTE
    assert policy.act(trip_of(9), 0, 2) == Action(gate=Gate("first_block", 0.1))


def test_tea_cache_sums_changes_until_they_reach_the_threshold() -> None:
    policy = TeaCache(threshold=0.1, max_held=9)
    # 0.04 + 0.04 stays below, + 0.04 does not; then the sum begins again.
    assert run(policy, [0.0, *[0.04] * 8, 0.0]) == ".hhfhhfhh."
    assert run(policy, [0.0, 0.1, 0.099, 0.002, 0.05, 0.0]) == ".fhfh."
    assert run(TeaCache(threshold=1.0, max_held=2), [0.0] * 9) == ".hh.hh.h."


def test_tea_cache_rescales_by_its_polynomial() -> None:
    """Horner's rule over the coefficients of the paper's code, the highest power first."""
    policy = TeaCache(
        threshold=0.25, max_held=9, c4=498.65, c3=-283.78, c2=55.86, c1=-3.82, c0=0.264
    )
    x = 0.05
    wanted = 498.65 * x**4 - 283.78 * x**3 + 55.86 * x**2 - 3.82 * x + 0.264
    gate = policy.act(trip_of(9), policy.begin(trip_of(9)), 1).gate
    assert gate is not None
    assert gate.rescaled(x) == pytest.approx(wanted)
    assert gate.threshold == 0.25
    halves = TeaCache(threshold=0.1, max_held=9, c1=0.5)
    assert run(halves, [0.0, *[0.045] * 6, 0.0]) == ".hhhhfh."


def test_a_threshold_of_zero_never_holds() -> None:
    for policy in (FirstBlock(threshold=0.0), TeaCache(threshold=0.0)):
        assert "h" not in run(policy, [0.0] * 9)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("first_block:threshold=-1", "threshold a number from 0"),
        ("first_block:threshold=nan", "threshold a number from 0"),
        ("first_block:warmup=0", "warmup a whole number from 1 to 1000"),
        ("first_block:max_held=1.5", "max_held a whole number from 1 to 1000"),
        ("first_block:hold=2", "fields threshold, warmup, max_held"),
        ("tea_cache:threshold=-0.1", "threshold a number from 0"),
        ("tea_cache:max_held=0", "max_held a whole number from 1 to 1000"),
        ("tea_cache:c3=inf", "c3 a number from -1e"),
    ],
)
def test_fields_have_limits(spec: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as raised:
        build_policy(spec)
    assert raised.value.field == "policy"


def test_they_go_by_name() -> None:
    assert build_policy("first_block") == FirstBlock(threshold=0.08, warmup=2, max_held=3)
    chosen = build_policy("tea_cache:threshold=0.2,warmup=3,c2=4")
    assert chosen == TeaCache(threshold=0.2, warmup=3, c2=4)
