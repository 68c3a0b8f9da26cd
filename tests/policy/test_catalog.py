"""Policies by name, with fields, and from files of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from musiva.core.errors import InvalidInput
from musiva.policy import (
    POLICIES,
    Interval,
    Never,
    Trip,
    build_policy,
    load_policy_class,
    with_own,
)

MINE = '''
from dataclasses import dataclass
from musiva.core.types import Action

@dataclass(frozen=True)
class Halves:
    """Computes the first half of the evaluations, and holds the last value for the rest."""

    share: float = 0.5
    probes = ("change",)
    keep = 1

    def begin(self, trip):
        return ()

    def observe(self, trip, memory, evaluation, action, measured):
        return (*memory, measured.get("change"))

    def act(self, trip, memory, evaluation):
        return Action(compute=evaluation < self.share * trip.num_evaluations, order=0)
'''


def test_names_and_fields() -> None:
    assert isinstance(build_policy("never"), Never)
    assert build_policy("interval:interval=5,order=0") == Interval(interval=5, order=0)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("", "never, interval"),
        ("sometimes", "never, interval"),
        ("never:order=1", "fields none"),
        ("interval:order", "fields interval, warmup, order, guidance"),
        ("interval:order=1,order=0", "once each"),
        ("interval:order=one", "a number for order"),
        ("interval:order=7", "from 0 to 2"),
        ("interval:interval=0", "from 1 to 1000"),
        ("interval:interval=2.5", "from 1 to 1000"),
    ],
)
def test_what_is_refused(spec: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as raised:
        build_policy(spec)
    assert raised.value.field == "policy"


def test_an_interval_warms_up_and_then_computes_every_so_many() -> None:
    trip = Trip(tuple(range(12, 0, -1)), (1.0,) * 12, tuple(i / 12 for i in range(12)))
    policy = Interval(interval=4, warmup=3)
    done = [policy.act(trip, 0, evaluation).compute for evaluation in range(12)]
    assert [i for i, computes in enumerate(done) if computes] == [0, 1, 2, 6, 10]


def test_an_interval_borrows_the_unconditional_branch_where_there_is_one() -> None:
    policy = Interval(interval=2, warmup=1, guidance=3)
    for guided, borrowed in ((True, [2, 4, 8, 10]), (False, [])):
        trip, memory, found = Trip((1.0,) * 12, (1.0,) * 12, (0.0,) * 12, guided), 0, []
        for evaluation in range(12):
            action = policy.act(trip, memory, evaluation)
            if action.borrow:
                found.append(evaluation)
            if action.compute:
                memory = policy.observe(trip, memory, evaluation, action, {})
        assert (found, memory) == (borrowed, 6)


def test_a_policy_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    name, made = load_policy_class(f"{file}:Halves")
    policy = build_policy("halves:share=0.25", {**POLICIES, name: made})
    trip = Trip((1.0, 0.7, 0.4, 0.1), (0.25,) * 4, (0.0, 0.25, 0.5, 0.75))
    assert [policy.act(trip, (), e).compute for e in range(4)] == [True, False, False, False]


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        (MINE, "mine.py:Thirds", "a class with"),
        (MINE, "other.py:Halves", "a file that is there"),
        (MINE, "mine.txt:Halves", "FILE.py:CLASS"),
        ("1 / 0", "mine.py:Halves", "ZeroDivisionError"),
        ("class Halves: keep = 1", "mine.py:Halves", "probes, begin, observe, act"),
    ],
)
def test_files_that_hold_no_policy(tmp_path: Path, text: str, place: str, told: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InvalidInput, match=told):
        load_policy_class(str(tmp_path / place))


def test_a_probe_that_does_not_exist() -> None:
    class Odd(Never):
        probes = ("temperature",)

    with pytest.raises(InvalidInput, match="out of forecast_error, change, scale"):
        build_policy("odd", {"odd": Odd})


def test_the_documented_policy_runs(tmp_path: Path) -> None:
    """The example of docs/policies.md, as it stands there."""
    text = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    example = next(part for part in text.split("```python\n")[1:] if "class Restless" in part)
    (tmp_path / "restless.py").write_text(example.split("```")[0])
    spec, policies = with_own(f"{tmp_path / 'restless.py'}:Restless:most=2")
    assert spec == "restless:most=2"
    policy = build_policy(spec, policies)
    trip = Trip(tuple(1 - i / 10 for i in range(10)), (0.1,) * 10, tuple(i / 10 for i in range(10)))
    memory, computed = policy.begin(trip), []
    for evaluation in range(10):
        if (action := policy.act(trip, memory, evaluation)).compute:
            computed.append(evaluation)
            measured = {"scale": 1.0, "forecast_error": 0.01} if evaluation > 1 else {"scale": 1.0}
            memory = policy.observe(trip, memory, evaluation, action, measured)
    assert computed == [0, 1, 2, 4, 6, 8]
