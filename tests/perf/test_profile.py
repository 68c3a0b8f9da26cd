"""Profiles of a real, tiny model: they are measured, kept, found again, and hold."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from musiva.core.env import Env
from musiva.core.types import Kind
from musiva.cost import Profile, Work, profile_path
from musiva.engine import Pipeline, load_pipeline
from musiva.perf import profile
from musiva.perf.profile import (
    Repeated,
    errors_of,
    machine_of,
    measure_profile,
    profile_of,
    repeated_steps,
)


@pytest.fixture(scope="module")
def pipeline(calibrated_model: Path) -> Pipeline:
    return load_pipeline(calibrated_model, device="cpu")


def test_a_profile_tells_seconds_of_every_kind(pipeline: Pipeline) -> None:
    told: list[float] = []
    found = measure_profile(pipeline, seconds=3.0, tell=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert found.steps > 20
    assert 2.0 < found.seconds < 30.0
    assert set(found.errors) == {"median", "p95", "repeatability", "repeatability_p95"}
    # A rough guide on a machine that does other things too; the bench has the figure.
    assert found.errors["median"] < 2.0
    for kind, work in (
        (Kind.ENCODE, Work(kind=Kind.ENCODE, items=1, tokens=4)),
        (Kind.DECODE, Work(kind=Kind.DECODE, items=1, pixels=1024, pixel_pairs=1024**2)),
        (Kind.DENOISE, Work(kind=Kind.DENOISE, items=1, rows=32, pairs=512, branches=2)),
    ):
        assert 0.0 < found.cost.seconds(work) < 1.0, kind


def test_steps_come_again_after_the_same_steps(pipeline: Pipeline) -> None:
    cost = measure_profile(pipeline, seconds=1.0, check=False).cost
    steps = list(repeated_steps(pipeline, cost, random.Random(0), seconds=1.0, runs=3))
    assert {step.work.kind for step in steps} == set(Kind)
    assert all(len(step.seconds) == len(step.predicted) == 3 for step in steps)
    first = cost.seconds(steps[0].work)
    assert steps[0].predicted[0] == first
    # Corrected by what came before.
    assert steps[0].predicted[1] != first


def test_errors_are_of_medians_and_scatter_of_single_times() -> None:
    work = Work(kind=Kind.ENCODE, items=1, tokens=4)
    step = Repeated(work, seconds=(1.0, 2.0, 4.0), predicted=(3.0, 0.0, 9.0))
    assert step.error == 0.5
    assert step.scatter == [0.5, 0.0, 1.0]
    found = errors_of([step])
    assert (found["median"], found["p95"], found["repeatability"]) == (0.5, 0.5, 0.5)
    assert errors_of([]) == {}


def test_it_is_measured_once(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "QUICK_SECONDS", 0.3)
    env = Env(cache_dir=tmp_path)
    first = profile_of(pipeline, env)
    monkeypatch.setattr(profile, "measure_profile", None)
    assert profile_of(pipeline, env) == first


def test_a_spoilt_one_is_measured_anew(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "QUICK_SECONDS", 0.3)
    path = profile_path(tmp_path, machine_of(pipeline))
    path.parent.mkdir(parents=True)
    path.write_text("{")
    found = profile_of(pipeline, Env(cache_dir=tmp_path))
    assert Profile.read(path) == found


def test_a_full_disk_costs_only_the_keeping(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(profile, "QUICK_SECONDS", 0.3)

    def full(self: Profile, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Profile, "write", full)
    found = profile_of(pipeline, Env(cache_dir=tmp_path))
    assert found.steps > 0
    assert "could not be kept" in caplog.text


def test_another_model_is_another_machine(pipeline: Pipeline) -> None:
    assert machine_of(pipeline) != machine_of(replace(pipeline, name="other"))
