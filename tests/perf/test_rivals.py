"""The reuse of other libraries, on a tiny model: that they run, reset, and are counted rightly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from musiva.perf.benches import rival_caches, rival_runs, rivals
from musiva.perf.benches.rival_runs import Studio, Work
from musiva.perf.child import Message

# What other libraries warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
NEEDS_CACHE_DIT = pytest.mark.skipif(find_spec("cache_dit") is None, reason="needs cache-dit")
STEPS = 6

# A setting that computes everything, and one that skips something.
SETTINGS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "first_block_cache": ({"threshold": -1.0}, {"threshold": 1e9}),
    "taylorseer": ({"disable_cache_before_step": 99}, {"cache_interval": 3}),
    "taylorseer_lite": ({"disable_cache_before_step": 99}, {"cache_interval": 3}),
    "pyramid_attention": (
        {"spatial_attention_block_skip_range": 1},
        {"spatial_attention_block_skip_range": 2, "cross_attention_block_skip_range": 3},
    ),
    "faster_cache": (
        {"unconditional_batch_timestep_skip_range": (-2, -1)},
        {"unconditional_batch_skip_range": 3},
    ),
    "mag_cache": ({"threshold": -1.0}, {"threshold": 1e9}),
    "sea_cache": ({"threshold": 0.0}, {"threshold": 1e9}),
    "db_cache": (
        {"Fn_compute_blocks": 1, "residual_diff_threshold": -1.0, "max_warmup_steps": 1},
        {"Fn_compute_blocks": 1, "residual_diff_threshold": 1e9, "max_warmup_steps": 1},
    ),
    "db_cache_taylorseer": (
        {"Fn_compute_blocks": 1, "residual_diff_threshold": -1.0, "max_warmup_steps": 1},
        {
            "Fn_compute_blocks": 1,
            "residual_diff_threshold": 1e9,
            "max_warmup_steps": 2,
            "taylorseer_order": 1,
        },
    ),
}


def question(
    model: Path, sweeps: Mapping[str, Sequence[Mapping[str, Any]]], prompts: Sequence[str]
) -> Message:
    return {
        "model": str(model),
        "prompts": list(prompts),
        "seeds": [3 + i for i in range(len(prompts))],
        "size": [32, 32],
        "steps": STEPS,
        "guidance": 3.0,
        "sweeps": sweeps,
        "learn_on": ["a red fox", "a blue whale"],
    }


@pytest.mark.parametrize(
    "rival",
    [
        pytest.param(name, marks=[NEEDS_CACHE_DIT] if name.startswith("db_") else [])
        for name in SETTINGS
    ],
)
def test_a_rival_that_skips_nothing_is_dense_and_one_that_does_is_not(
    tiny_model: Path, rival: str
) -> None:
    asked = question(tiny_model, {rival: SETTINGS[rival]}, ["a fox", "snow"])
    found = rival_runs.answer(asked)
    assert found["gate"]["ok"] is True
    nothing, something = found["rows"]
    assert (nothing["rival"], nothing["setting"]) == (rival, SETTINGS[rival][0])
    assert nothing["psnr"] == nothing["foreground"] == [100.0, 100.0]
    assert nothing["computed_share"] == 1.0
    assert 0.1 < something["computed_share"] < 1.0
    assert all(0 < x < 100 for x in something["psnr"])
    assert len(something["speedup"]) == 2
    assert min(something["speedup"]) > 0


@pytest.mark.parametrize(
    "rival",
    [
        pytest.param(name, marks=[NEEDS_CACHE_DIT] if name.startswith("db_") else [])
        for name in SETTINGS
    ],
)
def test_no_picture_knows_of_the_one_before(tiny_model: Path, rival: str) -> None:
    studio = Studio(question(tiny_model, {}, ["a fox"]))
    calls = {"steps": STEPS, "ratios": [1.0] * STEPS}
    pipeline = rival_caches.attach(rival, SETTINGS[rival][1], studio.pipeline, calls)
    first, _, again = (
        studio.draw(pipeline, Work(), prompt, seed).picture
        for prompt, seed in (("a fox", 1), ("an old bicycle", 2), ("a fox", 1))
    )
    assert first.tobytes() == again.tobytes()


def test_a_copy_shares_weights_and_leaves_the_original_alone(tiny_model: Path) -> None:
    studio = Studio(question(tiny_model, {}, ["a fox"]))
    model = studio.pipeline.transformer
    before = studio.draw(studio.pipeline, Work(), "a fox", 1).picture
    copied = rival_caches.attach("first_block_cache", {"threshold": 1e9}, studio.pipeline, {})
    assert copied.transformer is not model
    pairs = zip(copied.transformer.parameters(), model.parameters(), strict=True)
    assert all(a is b for a, b in pairs)
    assert studio.draw(copied, Work(), "a fox", 1).picture.tobytes() != before.tobytes()
    assert studio.draw(studio.pipeline, Work(), "a fox", 1).picture.tobytes() == before.tobytes()


def test_who_refuses_is_told_and_the_others_go_on(tiny_model: Path) -> None:
    sweeps = {
        "first_block_cache": [{"no_such_field": 1}, {"threshold": 1e9}],
        "taylorseer": [{"cache_interval": 0}],
    }
    attached, running, late = rival_runs.answer(question(tiny_model, sweeps, ["a fox"]))["rows"]
    assert attached["refused"].startswith("TypeError")
    assert "psnr" not in attached
    assert len(running["psnr"]) == 1
    assert late["refused"].startswith("ZeroDivisionError")


def test_another_model_or_path_closes_the_gate(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Studio.draw
    monkeypatch.setattr(
        Studio, "draw", lambda self, p, work, prompt, seed: draw(self, p, work, prompt, seed + 1)
    )
    found = rival_runs.answer(question(tiny_model, {"taylorseer": [{}]}, ["a fox"]))
    assert found["gate"]["ok"] is False
    assert found["gate"]["dense_against_ours_db"] < 45
    assert found["rows"] == []


def test_magnitude_ratios_are_the_mean_over_runs(tiny_model: Path) -> None:
    studio = Studio(question(tiny_model, {}, ["a fox"]))

    def ratios(*prompts: str) -> list[float]:
        runs = [
            lambda pipeline, prompt=prompt: studio.draw(pipeline, Work(), prompt, 1)
            for prompt in prompts
        ]
        return rival_caches.magnitude_ratios(studio.pipeline, runs, STEPS)

    one, other, both = ratios("a fox"), ratios("snow"), ratios("a fox", "snow")
    assert len(both) == STEPS
    assert both[0] == 1.0
    assert one != other
    assert both == pytest.approx([(a + b) / 2 for a, b in zip(one, other, strict=True)])


def test_work_counts_multiply_adds() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    work = Work()
    work.watch(model)
    model(torch.zeros(7, 3))
    assert work.done == 7 * (3 * 5 + 5 * 2)


def test_sweeps_trace_a_curve_of_every_rival() -> None:
    assert set(rivals.SWEEPS) == set(rival_caches.RIVALS)
    for settings in rivals.SWEEPS.values():
        assert len(settings) >= 4
        assert len({repr(setting) for setting in settings}) == len(settings)


def test_the_child_is_asked_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run_child(module: str, question: Message, **options: object) -> Message:
        asked.update(question, module=module, **options)
        return {"rows": []}

    monkeypatch.setattr(rivals, "run_child", run_child)
    sweeps = {"taylorseer": [{"cache_interval": 2}]}
    rivals.measure_rivals(
        ["a", "b"], steps=28, size=(128, 96), threads=2, rivals=sweeps, first_seed=5
    )
    assert asked["module"] == "musiva.perf.benches.rival_runs"
    assert (asked["prompts"], asked["seeds"]) == (["a", "b"], [5, 6])
    assert (asked["size"], asked["steps"], asked["guidance"]) == ([128, 96], 28, 4.0)
    assert (asked["sweeps"], asked["threads"]) == (sweeps, 2)
    assert not set(asked["learn_on"]) & {"a", "b"}
    assert len(asked["learn_on"]) >= 8
