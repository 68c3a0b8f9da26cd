"""What policies, users and the scheduler are told of tiles, and actions that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.stepping import Bench

from musiva.core.errors import ExecutionFailed
from musiva.core.tiling import tile_members
from musiva.core.types import COMPUTE, Action, Gate
from musiva.engine import load_pipeline
from musiva.engine.pipeline import Pipeline
from musiva.policy import TILE_PROBES, Never, Trip

SIZE = (72, 56)
HALF = (True, True, False) * 4


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


class Half(Never):
    """Two of three columns of tiles, but all at the evaluations of `full`."""

    keep = 2
    tile = (2, 3)
    full = (0,)

    def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
        return COMPUTE if evaluation in self.full else Action(tiles=HALF)


class Watch(Half):
    """Remembers all that it is told."""

    probes = (*TILE_PROBES, "change", "forecast_error", "scale")

    def begin(self, trip: Trip):
        return ()

    def observe(self, trip: Trip, memory, evaluation: int, action: Action, measured):
        return (*memory, measured)


def rms(x) -> float:
    return float(x.double().square().mean().sqrt())


@pytest.mark.parametrize("sampler", ["euler", "dpm++2m"])
def test_probes_of_tiles_and_of_what_was_computed(pipeline: Pipeline, sampler: str) -> None:
    """Against fields that are looked up between the steps."""
    bench = Bench(pipeline, watch=Watch)
    request = {"prompt": "a red fox", "size": SIZE, "steps": 6, "sampler": sampler}
    bench.submit("r", **request, guidance=1.0, policy="watch")
    bench.run(1 + 1)
    slot, schedule = bench.executor._slots["r/0"], bench.executor._schedule
    sample = bench.loop.state.samples["r/0"]
    members = [[t for t in row if t >= 0] for row in tile_members((1, 7, 9), (2, 3)).tolist()]
    assert set(sample.memory[0]) == {"tile_variation", "scale"}
    for evaluation in range(1, 5):
        path = schedule(sample.request.path)
        place, before = path.place(evaluation), slot.anchors
        x_LC = slot.latent_LC
        forecast_LC = before.forecast(place, 1)
        bench.run(1)
        clean_LC, told = slot.anchors.values[0], sample.memory[evaluation]
        prediction_LC = (x_LC - clean_LC) / path.level(evaluation)[1]
        for name, field_LC in (
            ("tile_error", clean_LC - forecast_LC),
            ("tile_change", clean_LC - before.values[0]),
        ):
            for tile, (value, there) in enumerate(zip(told[name], HALF, strict=True)):
                assert (value is not None) == there
                if there:
                    assert value == pytest.approx(rms(field_LC[members[tile]]), rel=1e-4)
        for value, there, tokens in zip(told["tile_variation"], HALF, members, strict=True):
            if there:
                wanted = float(prediction_LC[tokens].double().std(correction=0))
                assert value == pytest.approx(wanted, rel=1e-4)
        computed = [t for tokens, there in zip(members, HALF, strict=True) if there for t in tokens]
        assert told["scale"] == pytest.approx(rms(clean_LC[computed]), rel=1e-5)
        change = rms((clean_LC - before.values[0])[computed])
        assert told["change"] == pytest.approx(change, rel=1e-5)
        # What was not computed is what its forecast said.
        others = [t for t in range(63) if t not in computed]
        assert torch.equal(clean_LC[others], forecast_LC[others])


def test_a_calibrated_forecast_stands_in_for_tiles(calibrated_model: Path) -> None:
    class Calibrated(Half):
        full = (0, 1)
        probes = ("tile_error",)

        def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
            tiles = None if evaluation in self.full else HALF
            return Action(calibrated=evaluation > 0, tiles=tiles)

    bench = Bench(load_pipeline(calibrated_model, device="cpu"), calibrated=Calibrated)
    bench.submit("r", prompt="a red fox", size=SIZE, steps=6, guidance=3.0, policy="calibrated")
    bench.run(1 + 2)
    slot, kriging = bench.executor._slots["r/0"], bench.executor._kriging
    assert kriging is not None
    path = bench.executor._schedule(bench.loop.state.samples["r/0"].request.path)
    members = tile_members((1, 7, 9), (2, 3))
    for evaluation in (2, 3):
        expected_LC = kriging.estimate(slot.anchors, path.place(evaluation), slot.grid)
        bench.run(1)
        told = bench.journal.measured["r/0"][-1]["tile_error"]
        for tile, there in enumerate(HALF):
            tokens = members[tile][members[tile] >= 0]
            wrong = rms((slot.anchors.values[0] - expected_LC)[tokens])
            assert told[tile] == (pytest.approx(wrong, rel=1e-4) if there else None)
            assert (wrong > 1e-4) == there


def test_news_count_tiles_and_rows(pipeline: Pipeline) -> None:
    bench = Bench(pipeline, half=Half)
    bench.submit("r", prompt="a red fox", size=SIZE, steps=5, guidance=3.0, policy="half")
    bench.run()
    # Tiles of 2 x 3 on 7 x 9 tokens: two of three columns.
    share = 42 / 63
    told = [(e.computed, e.cost) for e in bench.events if e.kind == "progress"]
    assert told == [(1, pytest.approx(1 + i * share)) for i in range(5)]
    (picture,) = [event for event in bench.events if event.kind == "picture"]
    assert (picture.computed, picture.cost) == (1, pytest.approx(1 + 4 * share))
    assert picture.tiles == (4, 3)
    assert picture.tile_counts == (5, 5, 1) * 4
    assert [result.rows for result in bench.journal.results] == [2 * 64] + [2 * 48] * 4


def test_borrowed_held_and_forecast_evaluations_cost_what_they_compute(pipeline: Pipeline) -> None:
    bench, found = Bench(pipeline), {}
    policies = {
        "borrows": "interval:interval=1,guidance=2",
        "holds": "first_block:threshold=1e9,warmup=2,max_held=9",
        "gaps": "interval:interval=3,warmup=1",
    }
    for name, policy in policies.items():
        bench.submit(name, prompt="a red fox", size=SIZE, steps=6, guidance=3.0, policy=policy)
    bench.run()
    for event in bench.events:
        if event.kind == "picture":
            found[event.request] = event.cost
            assert (event.tiles, event.tile_counts) == (None, ())
    assert found == {"borrows": 4.5, "holds": 2.0, "gaps": 2.0}


def test_packs_are_planned_by_the_rows_that_are_taken(pipeline: Pipeline) -> None:
    """Two samples of 128 rows in full, of 96 with their tiles, and a pack of 200."""
    bench = Bench(pipeline, half=Half, max_rows=200)
    for name in ("a", "b"):
        bench.submit(name, prompt="a red fox", size=SIZE, steps=4, guidance=3.0, policy="half")
    bench.run()
    assert [r.rows for r in bench.journal.results] == [128, 96, 96, 96, 128, 96, 96, 96]
    bench = Bench(pipeline, half=Half, max_rows=256)
    for name in ("a", "b", "c"):
        bench.submit(name, prompt="a red fox", size=SIZE, steps=4, guidance=3.0, policy="half")
    bench.run()
    assert [r.rows for r in bench.journal.results][:4] == [256, 192, 192, 192]


NONE = (False,) * 12


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (Action(tiles=NONE), "4 x 3 tiles, of which at least one"),
        (Action(tiles=HALF[1:]), "one for each of 4 x 3 tiles"),
        (Action(tiles=(1,) * 12), "a tuple of bools"),  # type: ignore[arg-type]
        (Action(tiles=[True] * 12), "a tuple of bools"),  # type: ignore[arg-type]
        (Action(tiles=HALF, compute=False), "None where the model does not run"),
        (Action(tiles=HALF, gate=Gate("first_block", 0.1)), "where a gate decides"),
        (Action(tiles=HALF, held="rest"), "something is held"),
        (Action(tiles=HALF, order=2), "below 2, the number of values it keeps"),
        (Action(tiles=HALF, calibrated=True), "the model has no calibration"),
    ],
)
def test_tiles_that_cannot_be_are_refused(pipeline: Pipeline, action: Action, told: str) -> None:
    class Wrong(Half):
        probes = ("first_block",)

        def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
            return COMPUTE if evaluation < 2 else action

    bench = Bench(pipeline, wrong=Wrong)
    bench.submit("w", prompt="a red fox", size=SIZE, steps=4, policy="wrong")
    bench.run()
    (failed,) = [event for event in bench.events if event.kind == "failed"]
    assert isinstance(failed.error, ExecutionFailed)
    assert told in str(failed.error)


def test_the_first_evaluation_and_policies_without_tiles_compute_all(pipeline: Pipeline) -> None:
    class Hasty(Half):
        full = ()

    class Plain(Never):
        keep = 1

        def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
            return Action(tiles=HALF, order=0) if evaluation else COMPUTE

    bench = Bench(pipeline, hasty=Hasty, plain=Plain)
    with pytest.raises(ExecutionFailed, match="compute all at evaluation 0"):
        bench.submit("w", prompt="a red fox", size=SIZE, steps=4, policy="hasty")
    bench.submit("p", prompt="a red fox", size=SIZE, steps=4, policy="plain")
    bench.run()
    (failed,) = [event for event in bench.events if event.kind == "failed"]
    assert "the policy has no `tile`" in str(failed.error)
