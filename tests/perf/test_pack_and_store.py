"""The benches `pack` and `store`, with a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musiva.core.errors import InvalidInput
from musiva.engine import Engine, Pipeline, load_pipeline
from musiva.perf.benches import pack, pack_mixed, store, store_pressed
from musiva.perf.benches.company import Guest, Outing, Replay, go_out, replay_of
from musiva.perf.benches.store_operations import operation_rows
from musiva.perf.child import Message
from musiva.policy import build_policy

MIB = 1 << 20
# Holds wherever it may.
HOLD = "first_block:threshold=1e9"
RAS = "ras:warmup=2,share=0.5"


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def guest(policy: str = "never", **options: object) -> Guest:
    plain = {"size": (32, 32), "steps": 5, "guidance": 3.0, "seed": 1}
    return Guest(prompt="a fox", policy=build_policy(policy), **{**plain, **options})  # type: ignore[arg-type]


def test_guests_get_the_pictures_of_the_engine(tiny_model: Path, pipeline: Pipeline) -> None:
    policies = ["never", "interval:interval=2", "never", RAS]
    options = [{}, {"size": (16, 48), "arrives": 2}, {"seed": 9}, {"arrives": 1}]
    guests = [guest(policy, **one) for policy, one in zip(policies, options, strict=True)]
    outing = go_out(pipeline, guests, store_bytes=MIB)
    with Engine.load(tiny_model) as engine:
        for policy, one, picture in zip(policies, guests, outing.pictures, strict=True):
            (known,) = engine.generate(
                "a fox", size=one.size, steps=5, guidance=3.0, seed=one.seed, policy=policy
            )
            assert np.asarray(known).tobytes() == picture.tobytes()
    assert [len(journal) for journal in outing.journals] == [5, 5, 5, 5]
    assert [a.compute for a in outing.journals[1]] == [True, True, True, False, True]
    assert [a.tiles is None for a in outing.journals[3]] == [True, True, False, False, False]


def test_a_journal_gives_the_same_picture_again(pipeline: Pipeline) -> None:
    outing = go_out(pipeline, [guest(HOLD)], store_bytes=MIB)
    (journal,) = outing.journals
    assert [action.held for action in journal] == [None, None, "rest", "rest", "rest"]
    assert outing.num_held == 3
    policy = build_policy(HOLD)
    held = replace(guest(), policy=Replay(journal, policy.probes, policy.keep))
    assert go_out(pipeline, [held], store_bytes=MIB).pictures[0].tobytes() == (
        outing.pictures[0].tobytes()
    )
    changed = (*journal[:3], replace(journal[3], held=None), journal[4])
    other = replace(held, policy=Replay(changed, policy.probes, policy.keep))
    assert go_out(pipeline, [other], store_bytes=MIB).pictures[0].tobytes() != (
        outing.pictures[0].tobytes()
    )


def test_a_journal_of_tiles_gives_the_same_picture_again(pipeline: Pipeline) -> None:
    outing = go_out(pipeline, [guest(RAS)], store_bytes=MIB)
    replay = replay_of(build_policy(RAS), outing.journals[0])
    again = go_out(pipeline, [replace(guest(), policy=replay)], store_bytes=MIB)
    assert again.journals == outing.journals
    assert again.pictures[0].tobytes() == outing.pictures[0].tobytes()


def test_bytes_in_use_are_watched(pipeline: Pipeline) -> None:
    one = go_out(pipeline, [guest(HOLD)], store_bytes=MIB)
    # Two branches, a reference and a residual each: one page of 64 tokens of 16 numbers.
    assert one.peak_bytes == 2 * 2 * 64 * 16 * 4
    assert one.figures.used_bytes == 0
    three = go_out(pipeline, [guest(HOLD, seed=i) for i in range(3)], store_bytes=MIB)
    assert three.peak_bytes == 3 * one.peak_bytes


def test_what_a_guest_fails_of_is_raised(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInput):
        go_out(pipeline, [guest(HOLD)], store_bytes=100)


POLICIES = ["never", "interval:interval=2", HOLD]


def test_mixed_requests_are_equal_together_and_alone(tiny_model: Path) -> None:
    asked = {"model": str(tiny_model), "pairs": 1, "policies": POLICIES, "steps": 4}
    found = pack_mixed.answer(asked)
    (name,) = (key for key in found["gate"] if key.startswith("pictures_equal"))
    assert found["gate"] == {"ok": True, name: "8 of 8"}
    row = found["row"]
    assert row["pairs"] == 1
    assert row["ratio"] == pytest.approx(row["candidate_seconds"] / row["baseline_seconds"])
    assert len(row["policies"]) == len(row["sizes"]) == 8
    assert len(set(row["sizes"])) >= 4


def test_no_ratio_where_a_picture_differs(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(pipeline: Pipeline, guests: Sequence[Guest], *, store_bytes: int) -> Outing:
        outing = go_out(pipeline, guests, store_bytes=store_bytes)
        if len(guests) > 1:
            outing.pictures[3] = outing.pictures[3] ^ 1
        return outing

    monkeypatch.setattr(pack_mixed, "go_out", spoil)
    found = pack_mixed.answer(
        {"model": str(tiny_model), "pairs": 1, "policies": POLICIES, "steps": 2}
    )
    assert found["gate"]["ok"] is False
    assert "7 of 8" in found["gate"].values()
    assert "row" not in found


def test_every_policy_that_there_is_takes_part() -> None:
    names = [spec.partition(":")[0] for spec in pack_mixed._all_policies()]
    assert {*names, "marked"} == set(pack_mixed.POLICIES)
    assert all(build_policy(spec) for spec in pack_mixed._all_policies())


def test_the_worse_number_of_threads_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = {1: 0.9, 2: 0.7}
    monkeypatch.setattr(pack.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(pack, "run_child", answers(lambda n: {"row": {"ratio": ratios[n]}}))
    figures = pack.measure(quick=True).figures
    assert figures == {"pack_time_ratio": 0.9}
    assert set(figures) <= set(pack.KEYS)


def answers(answer: Callable[[int], Message]) -> Callable[..., Message]:
    def run_child(module: str, question: Message, *, threads: int) -> Message:
        return {"gate": {"ok": True}, **answer(threads)}

    return run_child


def test_a_store_of_a_quarter_keeps_its_budget_and_no_picture_is_wrong(tiny_model: Path) -> None:
    asked = {"model": str(tiny_model), "requests": 8, "rounds": 1, "steps": 6, "policies": [HOLD]}
    found = store_pressed.answer(asked)
    assert found["gate"]["ok"] is True
    assert (found["exceeded"], found["correct"]) == (0, 1.0)
    row = found["rows"][0]
    assert row["budget_bytes"] * 4 == row["wanted_bytes"] == 8 * 2 * 2 * 64 * 16 * 4
    assert row["peak_bytes"] == row["budget_bytes"]
    # Two of eight pictures had room; they hold 3 of 6 evaluations.
    assert (row["held_with_room"], row["held"]) == (24, 6)


def test_bytes_beyond_the_budget_and_wrong_pictures_are_told(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(pipeline: Pipeline, guests: Sequence[Guest], *, store_bytes: int) -> Outing:
        outing = go_out(pipeline, guests, store_bytes=store_bytes)
        if store_bytes < store_pressed.PLENTY:
            outing.peak_bytes += 10
            outing.pictures[3] = outing.pictures[3] ^ 1
        return outing

    monkeypatch.setattr(store_pressed, "go_out", spoil)
    asked = {"model": str(tiny_model), "requests": 8, "rounds": 1, "steps": 4, "policies": [HOLD]}
    found = store_pressed.answer(asked)
    assert (found["exceeded"], found["correct"]) == (10, 0.875)


def test_nothing_is_told_of_a_store_that_nobody_presses(tiny_model: Path) -> None:
    asked = {"model": str(tiny_model), "requests": 4, "rounds": 1, "steps": 3}
    found = store_pressed.answer({**asked, "policies": ["first_block:warmup=1000"]})
    assert found["gate"]["held_evaluations"] == 0
    assert found["gate"]["ok"] is False
    assert "correct" not in found


def test_figures_of_the_store_come_from_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"exceeded": 0, "correct": 1.0, "rows": [{"what": "read"}]}
    monkeypatch.setattr(store, "run_child", answers(lambda _: found))
    findings = store.measure(quick=True)
    assert findings.figures == {"store_budget_exceeded": 0, "store_4x_over_correct": 1.0}
    assert tuple(findings.figures) == store.KEYS
    assert findings.rows == [{"what": "read"}]


def test_operations_of_the_store_are_timed() -> None:
    rows = operation_rows(2)
    assert [(row["what"], row["pages"]) for row in rows] == [
        ("reserve", "consecutive"),
        ("write", "consecutive"),
        ("read", "consecutive"),
        ("evict and reserve", "consecutive"),
        ("free", "consecutive"),
        ("reserve", "scattered"),
        ("write", "scattered"),
        ("read", "scattered"),
    ]
    assert all(0 < row["microseconds_per_mib"] < 1e6 for row in rows)
