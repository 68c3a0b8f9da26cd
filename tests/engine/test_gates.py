"""Gates in the engine: what they hold, that nobody's bytes depend on it, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stepping import Bench, comings_and_goings

from musiva.core.errors import ExecutionFailed, InvalidInput, NonFinite
from musiva.core.types import COMPUTE, Action, Gate
from musiva.engine import Engine, load_pipeline
from musiva.engine.pipeline import Pipeline
from musiva.perf.benches.company import replay_of
from musiva.policy import FirstBlock, Never, Trip

SIZE = (48, 32)
REQUESTS = (
    {"prompt": "a red fox", "size": (64, 48), "steps": 9, "seed": 3, "guidance": 4.0},
    {"prompt": "a blue whale", "size": (32, 32), "steps": 7, "guidance": 1.0},
    {"prompt": "two green apples", "size": (96, 64), "steps": 8, "sampler": "euler"},
    {"prompt": "an old bicycle", "size": (32, 64), "steps": 10, "negative_prompt": "a table"},
    {"prompt": "a red fox", "size": (64, 48), "steps": 6, "num_images": 2, "sampler": "heun"},
    {"prompt": "a green tree", "size": (48, 48), "steps": 9, "guidance": 2.0},
)
CHOSEN = (
    "first_block:threshold=0.08",
    "tea_cache:threshold=0.15",
    "never",
    "first_block:threshold=0.2,max_held=2",
    "tea_cache:threshold=0.1,c2=0.5,c0=0.01",
    "interval:interval=3,guidance=2",
)


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def options(i: int, policy: str | None = None) -> dict[str, object]:
    return {**REQUESTS[i], "policy": policy or CHOSEN[i]}


@pytest.fixture(scope="module")
def alone(pipeline: Pipeline) -> dict[str, np.ndarray]:
    pictures: dict[str, np.ndarray] = {}
    for i in range(len(REQUESTS)):
        bench = Bench(pipeline)
        bench.submit(f"r{i}", **options(i))
        pictures |= bench.run()
        gates = [policy.startswith(("first", "tea")) for policy in CHOSEN]
        assert not gates[i] or {*bench.held(f"r{i}/0")} in ({None, "rest"}, {None, "all"})
    return pictures


@pytest.mark.parametrize(
    ("order", "gap", "max_rows"),
    [((0, 1, 2, 3, 4, 5), 0, 4096), ((5, 4, 0, 3, 1, 2), 2, 512), ((3, 1, 5, 0, 2, 4), 1, 300)],
)
def test_pictures_do_not_depend_on_neighbours(
    pipeline: Pipeline, alone, order: Sequence[int], gap: int, max_rows: int
) -> None:
    """Other policies, other progress, other gates open at each step: the same bytes as alone."""
    bench = Bench(pipeline, max_rows=max_rows)
    for i in order:
        bench.submit(f"r{i}", **options(i))
        bench.run(gap)
    bench.run()
    assert bench.pictures.keys() == alone.keys()
    for name, picture in bench.pictures.items():
        assert np.array_equal(picture, alone[name]), name
    # Some steps computed a part of their samples only.
    rows = {result.rows for result in bench.journal.results}
    assert len(rows) > 3
    assert bench.executor.gates.store.owners == ()


@pytest.mark.parametrize("policy", ["first_block", "tea_cache"])
def test_a_threshold_of_zero_is_the_dense_run(pipeline: Pipeline, policy: str) -> None:
    bench = Bench(pipeline)
    for i in (0, 1, 4):
        bench.submit(f"d{i}", **options(i, "never"))
        bench.submit(f"z{i}", **options(i, f"{policy}:threshold=0"))
    bench.run()
    for name in ("0/0", "1/0", "4/0", "4/1"):
        assert np.array_equal(bench.pictures[f"z{name}"], bench.pictures[f"d{name}"])
        assert bench.held(f"z{name}") == [None] * len(bench.held(f"d{name}"))


@pytest.mark.parametrize(
    ("policy", "held"),
    [
        ("first_block:threshold=1e9,warmup=3,max_held=2", "...rr.rr.r"),
        ("first_block:threshold=1e9,warmup=1,max_held=100", ".rrrrrrrrr"),
        ("tea_cache:threshold=1e9,max_held=3", ".aaa.aaa.."),
        ("tea_cache:threshold=1e9,warmup=2,max_held=100", "..aaaaaaa."),
    ],
)
def test_a_high_threshold_holds_as_long_as_it_may(
    pipeline: Pipeline, policy: str, held: str
) -> None:
    bench = Bench(pipeline)
    bench.submit("r", prompt="a red fox", size=SIZE, steps=10, policy=policy)
    bench.run()
    names = {".": None, "r": "rest", "a": "all"}
    assert bench.held("r/0") == [names[letter] for letter in held]
    # What is held takes no rows, and does not count as computed.
    full = [i for i, letter in enumerate(held) if letter == "."]
    assert [i for i, result in enumerate(bench.journal.results) if result.rows] == full
    assert [e.computed for e in bench.events if e.kind == "picture"] == [len(full)]
    assert [e.warning for e in bench.events if e.kind == "picture"] == [None]


def test_the_journal_replays_to_the_same_bytes_without_a_gate(pipeline: Pipeline, alone) -> None:
    for i in (0, 1, 3):
        bench = Bench(pipeline)
        bench.submit("r", **options(i))
        bench.run()
        done = bench.journal.actions["r/0"]
        assert all(action.gate is None for action in done)
        assert any(action.held for action in done)
        again = Bench(pipeline)
        policy = bench.front.policies_of(bench.front.request(**options(i)))[0]
        again.submit("r", replay_of(policy, done), **options(i))
        again.submit("other", **options(2))
        again.run()
        assert again.journal.actions["r/0"] == done
        assert np.array_equal(again.pictures["r/0"], alone[f"r{i}/0"])


class HoldsAll(FirstBlock):
    """Computes the first evaluation, and wants to hold all others."""

    def act(self, trip: Trip, memory: int, evaluation: int) -> Action:
        return Action(gate=Gate("first_block", math.inf)) if evaluation else COMPUTE


def test_what_was_evicted_is_computed_again(pipeline: Pipeline) -> None:
    class Recomputes(Never):
        """The same by decree: full at 0 and 4."""

        probes = ("first_block",)

        def act(self, trip: Trip, memory: None, evaluation: int) -> Action:
            return COMPUTE if evaluation in (0, 4) else Action(held="rest")

    request = {"prompt": "a red fox", "size": SIZE, "steps": 8, "guidance": 3.0}
    bench = Bench(pipeline, evicted=HoldsAll, decreed=Recomputes)
    bench.submit("r", **request, policy="evicted")
    bench.run(1 + 4)
    # One branch is enough: what is left of the other one is of no use alone.
    bench.executor.gates.store.free(("r/0", 1))
    bench.run()
    assert bench.held("r/0") == [None, *["rest"] * 3, None, *["rest"] * 3]
    bench.submit("d", **request, policy="decreed")
    bench.run()
    assert np.array_equal(bench.pictures["r/0"], bench.pictures["d/0"])


def test_held_without_anything_kept_is_computed(pipeline: Pipeline) -> None:
    for_one = 2 * 2 * 64 * pipeline.denoiser.module.inner_dim * 4
    bench = Bench(pipeline, store_bytes=for_one, evicted=HoldsAll)
    for name in ("a", "b"):
        bench.submit(name, prompt="a red fox", size=SIZE, steps=5, guidance=3.0, policy="evicted")
    bench.submit("dense", prompt="a red fox", size=SIZE, steps=5, guidance=3.0)
    bench.run(1 + 3)
    assert [owner[0] for owner in bench.executor.gates.store.owners] == ["a/0", "a/0"]
    bench.run()
    # The first one to come keeps its pages; the other one finds no room, and is the dense run.
    assert bench.held("a/0") == [None, *["rest"] * 4]
    assert bench.held("b/0") == [None] * 5
    assert np.array_equal(bench.pictures["b/0"], bench.pictures["dense/0"])
    assert bench.executor.store_figures.refused == 5


def test_a_store_that_can_never_hold_a_picture_says_how_many_bytes_it_needs(
    pipeline: Pipeline,
) -> None:
    bench = Bench(pipeline, store_bytes=1000)
    bench.submit("big", prompt="a red fox", size=SIZE, steps=5, policy="first_block")
    bench.submit("dense", prompt="a red fox", size=SIZE, steps=5)
    bench.run()
    (failed,) = [event for event in bench.events if event.kind == "failed"]
    assert failed.request == "big"
    assert isinstance(failed.error, InvalidInput)
    assert failed.error.field == "policy"
    width = pipeline.denoiser.module.inner_dim
    assert f"{2 * 2 * 64 * width * 4:,} bytes" in str(failed.error)
    assert "1,000 bytes" in str(failed.error)
    assert list(bench.pictures) == ["dense/0"]


@pytest.mark.parametrize("policy", ["first_block", "tea_cache"])
def test_a_probe_that_is_not_a_number_fails_its_request_alone(
    pipeline: Pipeline, alone, policy: str
) -> None:
    bench = Bench(pipeline)
    bench.submit("bad", prompt="a red fox", size=SIZE, steps=6, policy=policy)
    bench.submit("r0", **options(0))
    bench.run(1 + 3)
    slot = bench.executor._slots["bad/0"]
    slot.latent_LC = torch.full_like(slot.latent_LC, torch.nan)
    bench.run()
    (failed,) = [event for event in bench.events if event.kind == "failed"]
    assert failed.request == "bad"
    assert isinstance(failed.error, NonFinite)
    probe = {"first_block": "first_block", "tea_cache": "modulated_input"}[policy]
    assert f"evaluation 4: the probe {probe} is not finite" in str(failed.error)
    assert np.array_equal(bench.pictures["r0/0"], alone["r0/0"])
    assert bench.executor.gates.store.owners == ()


EVENTS = comings_and_goings(st.integers(0, len(REQUESTS) - 1))


@settings(max_examples=15, deadline=None)
@given(EVENTS, st.sampled_from([40_000, 1 << 24]), st.sampled_from([256, 4096]))
def test_nothing_leaks_whoever_comes_and_goes(
    pipeline: Pipeline, alone, events: list[tuple[str, int]], store_bytes: int, max_rows: int
) -> None:
    """`Bench.step` checks slots, pages and the store after every step. The small store has room for
    two samples.
    """
    bench = Bench(pipeline, store_bytes=store_bytes, max_rows=max_rows)
    bench.live(events, lambda n, number: bench.submit(f"n{n}r{number}", **options(number)))
    assert not [event for event in bench.events if event.kind == "failed"]
    if store_bytes > 1 << 20 and "evict" not in dict(events):
        for name, picture in bench.pictures.items():
            assert np.array_equal(picture, alone[name[name.index("r") :]]), name


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (Action(gate=Gate("first_block", 0.1), held="rest"), "not both"),
        (Action(compute=False, gate=Gate("first_block", 0.1)), "where the model runs"),
        (Action(gate=Gate("modulated_input", 0.1)), "one of the policy's probes"),
        (Action(gate=Gate("scale", 0.1)), "first_block, modulated_input"),
        (Action(gate=Gate("first_block", math.nan)), "threshold: got nan"),
        (Action(held="all"), "what the policy's probes keep: rest"),
    ],
)
def test_gates_that_cannot_be_are_refused(pipeline: Pipeline, action: Action, told: str) -> None:
    class Wrong(FirstBlock):
        def act(self, trip: Trip, memory: int, evaluation: int) -> Action:
            return COMPUTE if evaluation < 2 else action

    bench = Bench(pipeline, wrong=Wrong)
    bench.submit("w", prompt="a red fox", size=SIZE, steps=4, policy="wrong")
    bench.run()
    (failed,) = [event for event in bench.events if event.kind == "failed"]
    assert isinstance(failed.error, ExecutionFailed)
    assert told in str(failed.error)


def test_nothing_can_be_held_at_the_first_evaluation(pipeline: Pipeline) -> None:
    class Hasty(FirstBlock):
        def act(self, trip: Trip, memory: int, evaluation: int) -> Action:
            return Action(held="rest")

    bench = Bench(pipeline, hasty=Hasty)
    with pytest.raises(ExecutionFailed, match="compute all at evaluation 0"):
        bench.submit("w", prompt="a red fox", size=SIZE, steps=4, policy="hasty")


def test_a_policy_that_skips_nothing_is_told_of(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(pipeline)
    for name, policy, steps in (
        ("idle", "first_block:threshold=0", 5),
        ("wide", "interval:interval=2,warmup=9", 5),
        ("busy", "interval:interval=2,warmup=1", 5),
        ("borrows", "interval:interval=1,guidance=2", 5),
        ("short", "first_block", 1),
        ("dense", "never", 5),
    ):
        bench.submit(name, prompt="a red fox", size=SIZE, steps=steps, guidance=2.0, policy=policy)
    bench.run()
    warned = {e.request: e.warning for e in bench.events if e.kind == "picture" and e.warning}
    assert set(warned) == {"idle", "wide"}
    assert warned["idle"].startswith("policy: 'first_block:threshold=0' had no effect")
    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "found nothing to skip" in line]) == 2


def test_a_store_of_nothing_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="store_bytes: got 0"):
        Engine(pipeline, Engine.Config(store_bytes=0))


def test_the_store_tells_what_it_holds(pipeline: Pipeline) -> None:
    bench = Bench(pipeline)
    bench.submit("r", prompt="a red fox", size=SIZE, steps=6, guidance=2.0, policy="first_block")
    bench.run(1 + 2)
    figures = bench.executor.store_figures
    page = 64 * pipeline.denoiser.module.inner_dim * 4
    assert (figures.budget_bytes, figures.used_bytes, figures.owners) == (1 << 24, 4 * page, 2)
    assert dict(figures.site_bytes) == {"first_block": 2 * page, "rest": 2 * page}
    assert (figures.misses, figures.hits) == (2, 2)
    bench.run()
    assert (bench.executor.store_figures.used_bytes, bench.executor.store_figures.hits) == (0, 10)
