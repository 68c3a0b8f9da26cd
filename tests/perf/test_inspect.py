"""Where the compute of a picture went, with a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from musiva.core.errors import ExecutionFailed
from musiva.core.types import COMPUTE, Action
from musiva.engine import Engine
from musiva.perf.inspect import Evaluation, Run, compare, draw, follow
from musiva.perf.inspect.chart import COLOURS
from musiva.perf.inspect.findings import states_of
from musiva.perf.quality import psnr

OPTIONS = {"size": (72, 56), "steps": 8, "seed": 4, "guidance": 3.0}
POLICIES = ("never", "interval:interval=3,guidance=2", "ras:warmup=2,share=0.3", "first_block")


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[Engine]:
    with Engine.load(tiny_model, device="cpu") as engine:
        yield engine


def followed(engine: Engine, policy: str, **options: object) -> Run:
    return follow(engine, engine.request("a red fox", **{**OPTIONS, **options}, policy=policy))


@pytest.mark.parametrize("sampler", ["dpm++2m", "heun"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_that_is_followed_is_that_of_the_engine(
    engine: Engine, policy: str, sampler: str
) -> None:
    run = followed(engine, policy, sampler=sampler)
    *_, event, _ = engine.stream("a red fox", **OPTIONS, policy=policy, sampler=sampler)
    assert np.array_equal(run.picture, event.picture)
    assert tuple(evaluation.action for evaluation in run.evaluations) == event.actions
    assert sum(evaluation.cost for evaluation in run.evaluations) == pytest.approx(event.cost)
    assert (run.computed, run.cost) == (event.computed, event.cost)
    assert (run.tiles, run.tile_counts) == (event.tiles, event.tile_counts)
    for evaluation in run.evaluations:
        assert bool(evaluation.cost) == (evaluation.action.compute and not evaluation.action.held)
    # The latent after the last evaluation, here also after one that was skipped, is the picture.
    pixels_CHW = engine.pipeline.decode(run.evaluations[-1].latent)
    levels = ((pixels_CHW / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0)
    assert np.array_equal(levels.to(torch.uint8).numpy(), run.picture)


@pytest.mark.parametrize(
    "policy", ["adaptive:tolerance=0.4,max_gap=0.6", "adaptive_tiles:tolerance=0.3"]
)
def test_following_leaves_no_trace_in_forecasts(calibrated_model: Path, policy: str) -> None:
    """Spectra are worked out once, by whoever wants them first."""
    with Engine.load(calibrated_model, device="cpu") as engine:
        run = followed(engine, policy, sampler="dpm++2m")
        *_, event, _ = engine.stream("a red fox", **OPTIONS, policy=policy, sampler="dpm++2m")
    assert any(action.calibrated for action in event.actions)
    assert np.array_equal(run.picture, event.picture)


def test_latents_in_a_gap_are_those_after_each_evaluation(engine: Engine) -> None:
    """Euler with a data prediction that is held goes straight towards it."""
    policy = "interval:interval=100,warmup=2,order=0"
    gap = followed(engine, policy, sampler="euler").evaluations
    assert [e.action.compute for e in gap] == [True] * 2 + [False] * 6
    request = engine.request("a red fox", **OPTIONS, sampler="euler")
    schedule = engine.pipeline.schedule(request.path)
    times = [*map(schedule.place, range(8)), 0.0]
    target = gap[-1].latent
    for i in range(1, 8):
        start, end = gap[i - 1].latent, gap[i].latent
        torch.testing.assert_close(
            end, target + (start - target) * times[i + 1] / times[i], atol=1e-5, rtol=0
        )
        assert float((end - start).abs().mean()) > 1e-3


def test_the_store_is_followed(engine: Engine) -> None:
    assert {e.store_bytes for e in followed(engine, "interval").evaluations} == {0}
    used = [e.store_bytes for e in followed(engine, "ras").evaluations]
    # Keys and values, of both branches, of two layers, 16 wide, in float32, in pages of 16 rows.
    assert used == [2 * 2 * 2 * 64 * 16 * 4] * 8


def test_a_request_that_fails_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    request = engine.request("a red fox", **OPTIONS)
    monkeypatch.setattr("musiva.engine.executor.forward", None)
    with pytest.raises(ExecutionFailed, match="denoise failed"):
        follow(engine, request)


@pytest.mark.parametrize(
    ("action", "states"),
    [
        (COMPUTE, "computed computed"),
        (Action(coarse=True), "coarse coarse"),
        (Action(borrow=True), "borrowed borrowed"),
        (Action(held="rest"), "held held"),
        (Action(compute=False), "forecast forecast"),
        (Action(tiles=(False, True)), "forecast computed"),
        (Action(tiles=(True, False), borrow=True), "borrowed forecast"),
    ],
)
def test_states_of_tiles(action: Action, states: str) -> None:
    assert states_of(action, 2) == tuple(states.split())


def made(shift: float, **more: object) -> Run:
    """A run of two evaluations, whose latents are `shift` beside those of the dense run."""
    picture = np.full((24, 40, 3), 100, np.uint8)
    latent = torch.linspace(-1, 1, 12).reshape(1, 3, 4)
    evaluations = (
        Evaluation(COMPUTE, 1.0, latent, 0),
        Evaluation(Action(compute=False), 0.0, latent + shift, 0),
    )
    fields = {"computed": 2, "cost": 2.0, "tiles": None, "tile_counts": (), **more}
    return Run(picture, evaluations, **fields)  # type: ignore[arg-type]


def test_errors_are_found_where_they_are() -> None:
    run, dense = made(0.2, computed=1, cost=1.0), made(0.0)
    run.picture[16:, 32:] += 10
    found = compare(run, dense, None)
    # Blocks of 16 pixels; of the last one only 8 x 8 are there, and all of them are wrong by 10.
    assert found.block_psnr.shape == (2, 3)
    assert found.block_psnr[1, 2] == pytest.approx(20 * np.log10(255 / 10))
    assert (np.delete(found.block_psnr.ravel(), 5) == 100).all()
    assert found.psnr == psnr(run.picture, dense.picture)
    # The range of the dense latent is 2.
    assert found.latent_psnr == pytest.approx((100.0, 20.0), abs=1e-4)
    assert found.share == 0.5
    told = found.as_json()
    assert (told["block"], told["tiles"], told["tile_counts"]) == ([16, 16], None, None)
    assert told["evaluations"] == [
        {"evaluation": 1, "states": ["computed"], "cost": 1.0, "store_bytes": 0}
        | {"latent_psnr": 100.0},
        {"evaluation": 2, "states": ["forecast"], "cost": 0.0, "store_bytes": 0}
        | {"latent_psnr": 20.0},
    ]
    tiled = compare(made(0.0, tiles=(3, 2), tile_counts=(2, 1, 1, 1, 1, 1)), dense, (8, 32))
    assert tiled.block_psnr.shape == (3, 2)
    assert tiled.states == (("computed",) * 6, ("forecast",) * 6)


def test_the_chart_shows_what_was_done(engine: Engine) -> None:
    dense = followed(engine, "never")
    areas = {}
    for policy in ("never", "ras:warmup=2,share=0.25,interval=6", "first_block:threshold=1e9"):
        run = followed(engine, policy)
        tile = None if run.tiles is None else (16, 16)
        chart = draw(compare(run, dense, tile), "a red fox" * 100, [policy])
        assert chart.width == 1400
        pixels = np.asarray(chart).reshape(-1, 3)
        areas[policy] = {
            state: int((pixels == np.array(colour)).all(axis=1).sum())
            for state, colour in COLOURS.items()
        }
    never, ras, held = areas.values()
    assert never["forecast"] == never["held"] == held["forecast"] == ras["held"] == 0
    # A quarter was computed at five of eight evaluations; lines take some of both.
    assert ras["forecast"] > 95_000
    assert ras["computed"] > 95_000
    assert held["held"] > 2 * never["coarse"] + 10_000
