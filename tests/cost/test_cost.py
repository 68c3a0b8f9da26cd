"""The cost model: what it recovers, where packs end, how it drifts, and how it is kept."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musiva.core.errors import BadCheckpoint
from musiva.core.types import Kind
from musiva.cost import CostModel, Drift, Machine, Profile, Work, fit, profile_path
from musiva.cost.work import FEATURES

MACHINE = Machine(
    model="tiny", parameters=1000, device="cpu", dtype="float32", threads=2, torch="2.13.0"
)


def truth(work: Work) -> float:
    """Seconds of a machine that is made up: a step costs something, rows and pairs cost more."""
    if work.kind is Kind.DECODE:
        return 0.002 + 3e-6 * work.pixels
    if work.kind is Kind.ENCODE:
        return 0.001 + 0.004 * work.items + 1e-4 * work.tokens
    return 0.003 + 5e-5 * work.rows + 2e-8 * work.pairs + 2e-4 * work.branches


def some_work(draw: random.Random) -> Work:
    kind = draw.choice(list(Kind))
    if kind is Kind.ENCODE:
        return Work(kind=kind, items=draw.randint(1, 8), tokens=draw.randint(2, 80))
    if kind is Kind.DECODE:
        side = 16 * draw.randint(1, 16)
        return Work(kind=kind, items=1, pixels=side * side, pixel_pairs=side**4)
    branches, rows = draw.randint(1, 16), 16 * draw.randint(1, 32)
    return Work(
        kind=kind,
        items=branches,
        rows=branches * rows,
        pairs=branches * rows * rows,
        branches=branches,
        skipped=draw.randint(0, 30),
    )


def measured(count: int, noise: float, seed: int = 0) -> list[tuple[Work, float]]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        work = some_work(draw)
        found.append((work, truth(work) * draw.lognormvariate(0.0, noise)))
    return found


@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 0.01), (0.05, 0.04)])
def test_what_a_machine_takes_is_found_again(noise: float, allowed: float) -> None:
    model = fit(measured(400, noise))
    unseen = [some_work(random.Random(seed)) for seed in range(1000, 1200)]
    errors = sorted(abs(model.seconds(work) / truth(work) - 1) for work in unseen)
    assert errors[100] < allowed
    assert errors[190] < 4 * allowed


def test_steps_that_something_held_up_count_less() -> None:
    draw = random.Random(1)
    found = [(w, s * (8.0 if draw.random() < 0.06 else 1.0)) for w, s in measured(500, 0.02)]
    model = fit(found)
    unseen = [some_work(random.Random(seed)) for seed in range(1000, 1200)]
    errors = sorted(abs(model.seconds(work) / truth(work) - 1) for work in unseen)
    assert errors[100] < 0.06


def test_no_weight_is_negative_and_more_never_costs_less() -> None:
    model = fit(measured(60, 0.5, seed=4))
    assert all(w >= 0.0 for weights in model.weights.values() for w in weights)
    small = Work(kind=Kind.DENOISE, items=1, rows=64, pairs=4096, branches=1)
    more = Work(kind=Kind.DENOISE, items=2, rows=640, pairs=40960, branches=2)
    assert model.seconds(more) >= model.seconds(small)


def test_a_kind_of_which_nothing_is_known_costs_nothing() -> None:
    model = fit([(w, s) for w, s in measured(50, 0.0) if w.kind is Kind.DENOISE])
    assert model.seconds(Work(kind=Kind.DECODE, items=1, pixels=100)) == 0.0


def test_features_have_names() -> None:
    for kind in Kind:
        assert len(Work(kind=kind).features()) == len(FEATURES[kind])


def of_rows(fixed: float, row: float) -> CostModel:
    names = FEATURES[Kind.DENOISE]
    weights = [0.0] * len(names)
    weights[names.index("forward")], weights[names.index("rows")] = fixed, row
    none = {Kind.ENCODE: (0.0,) * 3, Kind.DECODE: (0.0,) * 4}
    return CostModel({**none, Kind.DENOISE: tuple(weights)})


def test_a_pack_ends_where_more_rows_are_no_cheaper() -> None:
    sample = Work(kind=Kind.DENOISE, items=1, rows=64, pairs=64 * 32, branches=2)
    # Nothing fixed, nothing saved; the more is fixed, the more rows share it.
    knees = [of_rows(fixed, 1e-4).knee(sample, 0.05) for fixed in (0.0, 0.01, 0.1)]
    assert knees[0] == 64
    assert knees == sorted(knees)
    assert of_rows(0.01, 1e-4).knee(sample, 0.05) == pytest.approx(0.01 / 1e-4 / 0.05, rel=0.6)


@given(st.lists(st.floats(0.01, 5.0), min_size=40, max_size=60), st.floats(0.2, 5.0))
def test_drift_follows_a_machine(steps: list[float], slower: float) -> None:
    drift = Drift()
    for seconds in steps:
        drift = drift.after(Kind.DENOISE, seconds, seconds * slower)
    passed = sum(steps) * slower
    if passed > 20.0:
        assert drift.factor(Kind.DENOISE) == pytest.approx(slower, rel=0.1)
    assert min(1.0, slower) - 1e-9 <= drift.factor(Kind.DENOISE) <= max(1.0, slower) + 1e-9
    # Most of it is the machine's, and so of all that it does.
    assert abs(math.log(drift.factor(Kind.DECODE))) <= abs(math.log(drift.factor(Kind.DENOISE)))


def test_a_kind_of_step_that_is_always_slower_is_told_apart() -> None:
    drift = Drift()
    for _ in range(2000):
        drift = drift.after(Kind.DENOISE, 0.02, 0.02).after(Kind.DECODE, 0.02, 0.03)
    drift = drift.after(Kind.DECODE, 0.02, 0.03).after(Kind.DENOISE, 0.02, 0.02)
    assert drift.factor(Kind.DENOISE) == pytest.approx(1.0, rel=0.05)
    assert drift.factor(Kind.DECODE) == pytest.approx(1.5, rel=0.05)


def test_one_hiccup_of_a_short_step_is_no_drift() -> None:
    assert Drift().after(Kind.ENCODE, 0.001, 0.05).factor(Kind.ENCODE) < 1.12


def test_a_profile_comes_back_as_it_was(tmp_path: Path) -> None:
    profile = Profile(
        machine=MACHINE,
        cost=fit(measured(80, 0.1)),
        steps=80,
        seconds=1.5,
        errors={"median": 0.03},
    )
    path = profile_path(tmp_path, MACHINE)
    assert Profile.read(path) is None
    profile.write(path)
    assert Profile.read(path) == profile


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"rows"', '"columns"'),
        lambda text: text.replace('"step":', '"step": -1.0, "x":'),
        lambda _: "[]",
    ],
)
def test_a_spoilt_profile_is_told(tmp_path: Path, change) -> None:
    path = tmp_path / "profile.json"
    made = fit(measured(30, 0.1))
    Profile(machine=MACHINE, cost=made, steps=1, seconds=1.0, errors={}).write(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(BadCheckpoint, match="musiva profile"):
        Profile.read(path)


def test_another_machine_has_another_profile(tmp_path: Path) -> None:
    other = Machine(
        model="tiny", parameters=1000, device="cpu", dtype="float32", threads=1, torch="2.13.0"
    )
    assert profile_path(tmp_path, MACHINE) != profile_path(tmp_path, other)
