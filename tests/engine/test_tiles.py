"""Tiles in the engine: bytes that depend on nobody, and pages that are gone or go."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stepping import Bench, comings_and_goings
from tests.tiny import tiny_pixart_directory

from musiva.core.errors import NonFinite
from musiva.core.types import COMPUTE, Action
from musiva.engine import load_pipeline
from musiva.engine.pipeline import Pipeline
from musiva.perf.benches.company import replay_of
from musiva.policy import Never, Trip
from musiva.policy.tiles import aged, with_old

SIZE = (72, 56)
EPSILON = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "prediction_type": "epsilon"}


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def epsilon(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Its DDIM scheduler clips data predictions."""
    path = tiny_pixart_directory(tmp_path_factory.mktemp("epsilon") / "tiny", scheduler=EPSILON)
    return load_pipeline(path, device="cpu")


@dataclass(frozen=True)
class Whim:
    """Any tiles at any time, by a seed; now and then none at all, or one branch only."""

    seed: int = 0
    order: int = 1
    max_age: int = 4
    tile = (2, 3)
    probes = ("tile_error",)

    @property
    def keep(self) -> int:
        return self.order + 1

    def begin(self, trip: Trip) -> tuple[int, ...]:
        return (0,) * len(trip.tile_tokens)

    def observe(self, trip: Trip, memory, evaluation: int, action: Action, measured):
        errors = measured.get("tile_error")
        assert evaluation < 1 or isinstance(errors, tuple)
        return aged(memory, action.tiles)

    def act(self, trip: Trip, memory, evaluation: int) -> Action:
        draw = random.Random(100 * self.seed + evaluation)
        if evaluation < 2 or draw.random() < 0.15:
            return COMPUTE
        if draw.random() < 0.15:
            return Action(compute=False, order=self.order)
        chosen = with_old(tuple(draw.random() < 0.4 for _ in memory), memory, self.max_age)
        if not any(chosen):
            return Action(compute=False, order=self.order)
        borrow = trip.guided and draw.random() < 0.3
        return Action(order=self.order, tiles=chosen, borrow=borrow)


class Every(Never):
    """Names all tiles, at every evaluation."""

    keep = 1
    tile = (2, 3)

    def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
        return Action(order=0, tiles=(True,) * len(trip.tile_tokens))


REQUESTS = (
    {"prompt": "a red fox", "size": SIZE, "steps": 9, "seed": 3, "guidance": 4.0},
    {"prompt": "a blue whale", "size": (32, 32), "steps": 7, "guidance": 1.0},
    {"prompt": "two green apples", "size": (96, 64), "steps": 8, "sampler": "euler"},
    {"prompt": "an old bicycle", "size": (40, 64), "steps": 10, "negative_prompt": "a table"},
    {"prompt": "a red fox", "size": SIZE, "steps": 6, "num_images": 2, "sampler": "heun"},
    {"prompt": "a green tree", "size": (48, 48), "steps": 9, "guidance": 2.0},
    {"prompt": "the sea", "size": (48, 64), "steps": 8, "guidance": 2.0},
    {"prompt": "a mountain", "size": (32, 48), "steps": 6},
)
CHOSEN = (
    "whim:seed=1",
    "whim:seed=2,order=0",
    "ras:warmup=2,interval=4,share=0.3",
    "refine:warmup=2,share=0.4,border=1",
    "whim:seed=3,order=2",
    "first_block:threshold=0.2,max_held=2",
    "interval:interval=3,guidance=2",
    "never",
)


def options(i: int, policy: str | None = None) -> dict[str, object]:
    return {**REQUESTS[i], "policy": policy or CHOSEN[i]}


def bench_of(pipeline: Pipeline, **options) -> Bench:
    return Bench(pipeline, whim=Whim, every=Every, **options)


def masks(bench: Bench, sample: str) -> list[tuple[bool, ...] | None]:
    return [action.tiles for action in bench.journal.actions[sample]]


@pytest.fixture(scope="module")
def alone(pipeline: Pipeline) -> dict[str, np.ndarray]:
    pictures: dict[str, np.ndarray] = {}
    for i, policy in enumerate(CHOSEN):
        bench = bench_of(pipeline)
        bench.submit(f"r{i}", **options(i))
        pictures |= bench.run()
        assert not policy.startswith(("whim", "ras", "refine")) or any(masks(bench, f"r{i}/0"))
    return pictures


@pytest.mark.parametrize(
    ("order", "gap", "max_rows"),
    [
        ((0, 1, 2, 3, 4, 5, 6, 7), 0, 4096),
        ((5, 7, 4, 0, 6, 3, 1, 2), 2, 512),
        ((3, 1, 5, 0, 2, 6, 4, 7), 1, 300),
    ],
)
def test_pictures_do_not_depend_on_neighbours(
    pipeline: Pipeline, alone, order: Sequence[int], gap: int, max_rows: int
) -> None:
    """Tiles, gates, gaps and dense runs in the same packs: the same bytes as alone."""
    bench = bench_of(pipeline, max_rows=max_rows)
    for i in order:
        bench.submit(f"r{i}", **options(i))
        bench.run(gap)
    bench.run()
    assert bench.pictures.keys() == alone.keys()
    for name, picture in bench.pictures.items():
        assert np.array_equal(picture, alone[name]), name
    assert bench.executor.store.owners == ()


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++2m", "unipc", "ddim"])
def test_all_tiles_are_the_dense_run(pipeline: Pipeline, epsilon, sampler: str) -> None:
    bench = bench_of(epsilon if sampler == "ddim" else pipeline)
    request = {"prompt": "a red fox", "size": SIZE, "steps": 6, "sampler": sampler}
    for name, policy in (("dense", "never"), ("tiled", "every"), ("ras", "ras:share=1,warmup=1")):
        bench.submit(name, **request, guidance=3.0, policy=policy)
    bench.run(1 + 3)
    assert len(bench.executor.store.owners) == 4
    bench.run()
    for name in ("tiled/0", "ras/0"):
        assert np.array_equal(bench.pictures[name], bench.pictures["dense/0"])
        assert masks(bench, name) == [None] * len(masks(bench, "dense/0"))


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++2m", "unipc", "ddim"])
@pytest.mark.parametrize("order", [0, 1])
def test_every_solver_takes_tiles(pipeline: Pipeline, epsilon, sampler: str, order: int) -> None:
    """Alone and packed alike, and nearer to the dense run the more tiles are computed."""
    chosen = epsilon if sampler == "ddim" else pipeline
    request = {"prompt": "a red fox", "size": SIZE, "steps": 10, "sampler": sampler}
    policies = {"d": "never", "f": "whim:seed=5", "c": "ras:warmup=2,interval=4,share=0.8"}
    policies["f"] += f",order={order}"
    policies["c"] += f",order={order},max_age=1"
    bench = bench_of(chosen)
    for name, policy in policies.items():
        bench.submit(name, **request, guidance=3.0, policy=policy)
    together = dict(bench.run())
    single = bench_of(chosen)
    for name, policy in policies.items():
        single.submit(name, **request, guidance=3.0, policy=policy)
        single.run()
        assert np.array_equal(single.pictures[f"{name}/0"], together[f"{name}/0"])
    away = {n: np.abs(together[f"{n}/0"].astype(float) - together["d/0"]).mean() for n in "fc"}
    assert 0 < away["c"] < away["f"] < 40


def test_the_journal_replays_to_the_same_bytes(pipeline: Pipeline, alone) -> None:
    for i in (0, 1, 2, 3):
        bench = bench_of(pipeline)
        bench.submit("r", **options(i))
        bench.run()
        (picture,) = [event for event in bench.events if event.kind == "picture"]
        assert list(picture.actions) == bench.journal.actions["r/0"]
        policy = bench.front.policies_of(bench.front.request(**options(i)))[0]
        again = bench_of(pipeline)
        again.submit("r", replay_of(policy, picture.actions), **options(i))
        again.submit("other", **options(4))
        again.run()
        assert again.journal.actions["r/0"] == list(picture.actions)
        assert np.array_equal(again.pictures["r/0"], alone[f"r{i}/0"])


HALF = (True, True, False) * 4


class Half(Never):
    """Two of three columns of tiles, but all at the evaluations of `full`."""

    keep = 2
    tile = (2, 3)
    full = (0,)

    def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
        return COMPUTE if evaluation in self.full else Action(tiles=HALF)


def test_what_was_evicted_is_computed_in_full(pipeline: Pipeline) -> None:
    decreed = type("Decreed", (Half,), {"full": (0, 4)})
    request = {"prompt": "a red fox", "size": SIZE, "steps": 8, "guidance": 3.0}
    bench = bench_of(pipeline, evicted=Half, decreed=decreed)
    bench.submit("r", **request, policy="evicted")
    bench.run(1 + 4)
    # One branch is enough: what is left of the other one is of no use alone.
    bench.executor.store.free(("r/0", 1, "tiles"))
    bench.run()
    assert masks(bench, "r/0") == [None, *[HALF] * 3, None, *[HALF] * 3]
    bench.submit("d", **request, policy="decreed")
    bench.run()
    assert np.array_equal(bench.pictures["r/0"], bench.pictures["d/0"])


def test_rows_of_a_coarser_grid_stand_for_no_tokens(pipeline: Pipeline) -> None:
    """The evaluation after one with a coarse branch is computed in full, and keeps its pages."""

    class Coarse(Half):
        def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
            return Action(tiles=HALF) if evaluation else Action(coarse=True)

    bench = bench_of(pipeline, coarse=Coarse)
    bench.submit("r", prompt="a red fox", size=SIZE, steps=5, guidance=3.0, policy="coarse")
    bench.run()
    assert masks(bench, "r/0") == [None, None, HALF, HALF, HALF]


def test_without_room_all_is_computed_and_users_are_told(pipeline: Pipeline) -> None:
    request = {"prompt": "a red fox", "size": SIZE, "steps": 5, "guidance": 3.0}
    bench = bench_of(pipeline, store_bytes=1000, half=Half)
    bench.submit("r", **request, policy="half")
    bench.submit("d", **request)
    bench.run()
    assert masks(bench, "r/0") == [None] * 5
    assert np.array_equal(bench.pictures["r/0"], bench.pictures["d/0"])
    told = {event.request: event.warning for event in bench.events if event.kind == "picture"}
    assert told["d"] is None
    assert "had no effect" in str(told["r"])


def test_gates_and_tiles_never_drive_each_other_out(pipeline: Pipeline) -> None:
    """Whoever comes first keeps its pages, and the other one is computed in full."""
    for first, second in (("whim:seed=1", "first_block"), ("first_block", "whim:seed=1")):
        sizes = bench_of(pipeline)
        sizes.submit("a", **{**REQUESTS[0], "policy": first})
        sizes.run(1 + 2)
        room = sizes.executor.store_figures.used_bytes
        bench = bench_of(pipeline, store_bytes=room + 64)
        bench.submit("a", **{**REQUESTS[0], "policy": first})
        bench.run(1 + 2)
        bench.submit("b", **{**REQUESTS[0], "policy": second})
        bench.run(1 + 4)
        assert {owner[0] for owner in bench.executor.store.owners} == {"a/0"}
        bench.run()
        figures = bench.executor.store_figures
        assert figures.evictions == 0
        assert figures.refused > 0 or second == "first_block"
        sizes.run()
        assert np.array_equal(bench.pictures["a/0"], sizes.pictures["a/0"])


def test_a_prediction_that_is_not_a_number_fails_alone_and_frees_its_pages(
    pipeline: Pipeline, alone
) -> None:
    bench = bench_of(pipeline, half=Half)
    bench.submit("bad", prompt="a red fox", size=SIZE, steps=6, policy="half")
    bench.submit("r0", **options(0))
    bench.run(1 + 3)
    slot = bench.executor._slots["bad/0"]
    slot.latent_LC = torch.full_like(slot.latent_LC, torch.nan)
    bench.run(1)
    assert {owner[0] for owner in bench.executor.store.owners} == {"r0/0"}
    bench.run()
    (failed,) = [event for event in bench.events if event.kind == "failed"]
    assert failed.request == "bad"
    assert isinstance(failed.error, NonFinite)
    assert np.array_equal(bench.pictures["r0/0"], alone["r0/0"])


def test_samples_without_tiles_keep_no_pages(pipeline: Pipeline) -> None:
    bench = bench_of(pipeline)
    bench.submit("plain", **options(6))
    bench.submit("tiled", **options(0))
    while bench.step():
        assert not [owner for owner in bench.executor.store.owners if owner[0] == "plain/0"]
    assert bench.executor.store_figures.written_bytes > 0


def test_no_token_is_older_than_its_cap(pipeline: Pipeline) -> None:
    bench = bench_of(pipeline)
    bench.submit("r", **{**REQUESTS[2], "steps": 24, "policy": "ras:share=0.1,warmup=2,max_age=3"})
    store, oldest = bench.executor.store, 0
    while bench.step():
        done = len(bench.journal.actions.get("r/0", ()))
        for owner in store.owners:
            for site in store.figures().site_bytes:
                oldest = max(oldest, int(store.ages(owner, site, done - 1)[:, 0].max()))
    assert oldest == 3


@pytest.mark.parametrize("cancel_after", range(1, 10))
def test_cancelling_leaks_nothing(pipeline: Pipeline, alone, cancel_after: int) -> None:
    bench = bench_of(pipeline)
    bench.submit("gone", **options(0, "whim:seed=7"))
    bench.submit("r3", **options(3))
    bench.run(cancel_after)
    bench.loop.cancel("gone")
    bench.run()
    assert bench.executor.num_slots == 0
    assert bench.executor.store.owners == ()
    assert np.array_equal(bench.pictures["r3/0"], alone["r3/0"])


EVENTS = comings_and_goings(st.integers(0, len(REQUESTS) - 1))


@settings(max_examples=15, deadline=None)
@given(EVENTS, st.sampled_from([200_000, 1 << 24]), st.sampled_from([256, 4096]))
def test_nothing_leaks_whoever_comes_and_goes(
    pipeline: Pipeline, alone, events: list[tuple[str, int]], store_bytes: int, max_rows: int
) -> None:
    """`Bench.step` checks slots, pages and the store after every step. The small store has room for
    a few samples.
    """
    bench = bench_of(pipeline, store_bytes=store_bytes, max_rows=max_rows)
    bench.live(events, lambda n, number: bench.submit(f"n{n}r{number}", **options(number)))
    assert not [event for event in bench.events if event.kind == "failed"]
    if store_bytes > 1 << 20 and "evict" not in dict(events):
        for name, picture in bench.pictures.items():
            assert np.array_equal(picture, alone[name[name.index("r") :]]), name
