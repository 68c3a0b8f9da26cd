"""What every policy has to keep, on every denoiser and path: contracts 1 to 6.

A few cases in which every two of contract, model, policy and path meet run always, the product of
all with `make matrix`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise, product
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musiva.core.errors import InvalidInput, NonFinite
from musiva.core.types import Action, Event
from musiva.perf.benches.company import replay_of
from musiva.policy import POLICIES, Trip
from tests.contract.driving import (
    WhimOfGates,
    WhimOfTiles,
    documented_policy,
    pipeline_of,
    selection,
)
from tests.contract.test_paged import MODELS
from tests.stepping import Bench, comings_and_goings

# By policy: one that computes everything, and one that skips on every model and path.
EXACT = {
    "never": "never",
    "interval": "interval:interval=1,order=2",
    "adaptive": "adaptive:tolerance=0",
    "adaptive_tiles": "adaptive_tiles:tolerance=0",
    "first_block": "first_block:threshold=0",
    "tea_cache": "tea_cache:threshold=0",
    "ras": "ras:share=1,warmup=1",
    "refine": "refine:interval=2,share=1,warmup=2",
    "marked": "marked:at=1048575",
    "restless": "restless:most=1",
}
ACTIVE = {
    "never": "never",
    "interval": "interval:interval=3,warmup=2,guidance=2",
    "adaptive": "adaptive:tolerance=0.2",
    "adaptive_tiles": "adaptive_tiles:tolerance=0.2,worthwhile=2",
    "first_block": "first_block:threshold=1.2,max_held=2",
    "tea_cache": "tea_cache:threshold=0.9,max_held=2",
    "ras": "ras:warmup=2,interval=4,share=0.3,max_age=2,order=1",
    "refine": "refine:warmup=2,interval=4,share=0.4,border=1",
    "marked": "marked:at=299593",
    "restless": "restless:tolerance=3,most=3",
}
# The most evaluations that may go by since a token was computed.
CAPS = {
    "never": 0,
    "interval": 2,
    "first_block": 2,
    "tea_cache": 2,
    "ras": 2,
    "refine": 3,
    "marked": 2,
    "restless": 2,
}
PATHS: Mapping[str, Mapping[str, object]] = {
    "euler": {"sampler": "euler", "steps": 8, "guidance": 3.0},
    "heun": {"sampler": "heun", "steps": 5, "guidance": 1.0},
    "dpm++2m": {"sampler": "dpm++2m", "steps": 8, "guidance": 2.0},
    # Its model is one whose data predictions are clipped.
    "ddim": {"sampler": "ddim", "steps": 8, "guidance": 3.0},
}
CONTRACTS = ("exact", "packed", "replayed", "aged", "broken", "idle", "cancelled")
SELECTED = selection(CONTRACTS, MODELS, tuple(ACTIVE), tuple(PATHS))
WIDTHS, HEIGHTS = (9, 6, 8, 5, 10), (7, 8, 4, 5, 6)


def test_every_policy_has_its_cases() -> None:
    assert set(POLICIES) | {"restless"} == set(ACTIVE) == set(EXACT)
    for chosen in (CONTRACTS, MODELS, ACTIVE, PATHS):
        assert {value for case in SELECTED for value in case} >= set(chosen)
    assert len(SELECTED) < len(CONTRACTS) * len(MODELS) * len(ACTIVE) * len(PATHS) / 10


def cases(contract: str) -> pytest.MarkDecorator:
    """The cases of a contract, of which those that are not selected are of the matrix."""
    found = []
    for case in product(MODELS, ACTIVE, PATHS):
        marks = () if (contract, *case) in SELECTED else (pytest.mark.matrix,)
        found.append(pytest.param(*case, marks=marks))
    return pytest.mark.parametrize(("model", "policy", "path"), found)


def bench_of(model: str, path: str, **options: int) -> Bench:
    pipeline = pipeline_of(model, clipped=path == "ddim")
    return Bench(
        pipeline,
        restless=documented_policy(),
        whim_of_tiles=WhimOfTiles,
        whim_of_gates=WhimOfGates,
        **options,
    )


def options(model: str, path: str, spec: str, kind: int = 0) -> dict[str, object]:
    """A request; kinds are of several sizes and prompts, and every third one is not guided."""
    unit, asked = pipeline_of(model).unit, dict(PATHS[path])
    if kind:
        sampler = "ddim" if path == "ddim" else ("euler", "dpm++2m", "heun")[kind % 3]
        asked = {"sampler": sampler, "steps": 4 + kind % 3, "guidance": 4.0 if kind % 3 else 1.0}
    size = (unit * WIDTHS[kind % len(WIDTHS)], unit * HEIGHTS[kind % len(HEIGHTS)])
    return {"prompt": f"a fox {'and a fox ' * kind}", "size": size, "policy": spec, **asked}


def submit_strangers(bench: Bench, model: str, path: str, order: Sequence[int], gap: int) -> None:
    """Requests of all policies, by their places in `ACTIVE`; `gap` steps between them."""
    specs = tuple(ACTIVE.values())
    for i in order:
        bench.submit(f"stranger{i}", **options(model, path, specs[i], 1 + i))
        bench.run(gap)


@cache
def alone(model: str, path: str, spec: str) -> Event:
    """The picture of a request that has the engine to itself."""
    bench = bench_of(model, path)
    bench.submit("r", **options(model, path, spec))
    bench.run()
    return bench.made("r/0")


@cache
def strangers(model: str, path: str) -> Mapping[str, np.ndarray]:
    bench = bench_of(model, path)
    submit_strangers(bench, model, path, range(len(ACTIVE)), 0)
    pictures = bench.run()
    assert not bench.failed()
    return pictures


def assert_same(ours: Mapping[str, object], expected: Mapping[str, object]) -> None:
    assert ours.keys() == expected.keys()
    for name, picture in ours.items():
        assert np.array_equal(picture, expected[name]), name


def skips(actions: Sequence[Action]) -> bool:
    return any(not action.full or action.borrow for action in actions)


@cases("exact")
def test_1_all_computed_is_the_dense_run(model: str, policy: str, path: str) -> None:
    bench = bench_of(model, path)
    for kind in (0, 2, 3):
        for name, spec in (("dense", "never"), ("exact", EXACT[policy])):
            bench.submit(f"{name}{kind}", **options(model, path, spec, kind))
    bench.run()
    assert not bench.failed()
    for kind in (0, 2, 3):
        ours, dense = (bench.made(f"{name}{kind}/0") for name in ("exact", "dense"))
        assert np.array_equal(ours.picture, dense.picture), kind
        assert not skips(ours.actions)
        assert ours.cost == dense.cost == ours.computed


@cases("packed")
def test_2_packed_equals_alone_in_any_order(model: str, policy: str, path: str) -> None:
    """Among strangers of all policies that came before it and come after it."""
    made, count = alone(model, path, ACTIVE[policy]), len(ACTIVE)
    assert skips(made.actions) == (policy != "never")
    for order, gap, max_rows in (
        (range(count), 0, 4096),
        (range(count)[::-1], 1, 600),
        (Random(1).sample(range(count), count), 2, 200),
    ):
        bench = bench_of(model, path, max_rows=max_rows)
        submit_strangers(bench, model, path, order[: count // 2], gap)
        bench.submit("r", **options(model, path, ACTIVE[policy]))
        submit_strangers(bench, model, path, order[count // 2 :], gap)
        bench.run()
        assert_same(bench.pictures, {**strangers(model, path), "r/0": made.picture})
        assert bench.made("r/0").actions == made.actions


@cases("replayed")
def test_3_a_journal_replays_to_the_same_bytes(model: str, policy: str, path: str) -> None:
    made, request = alone(model, path, ACTIVE[policy]), options(model, path, ACTIVE[policy])
    assert not any(action.gate for action in made.actions)
    bench = bench_of(model, path)
    chosen = bench.front.policies_of(bench.front.request(**request))[0]
    submit_strangers(bench, model, path, (3, 5), 1)
    bench.submit("r", replay_of(chosen, made.actions), **request)
    bench.run()
    assert not bench.failed()
    assert bench.made("r/0").actions == made.actions
    assert np.array_equal(bench.pictures["r/0"], made.picture)


def ages_of(actions: Sequence[Action], trip: Trip) -> list[list[int]]:
    """After each evaluation, how many have gone by since each tile was computed."""
    ages, found = [0] * max(len(trip.tile_tokens), 1), []
    for action in actions:
        ran = action.compute and action.held is None
        tiles = action.tiles or (ran,) * len(ages)
        ages = [0 if there else age + 1 for age, there in zip(ages, tiles, strict=True)]
        found.append(ages)
    return found


@cases("aged")
def test_4_nothing_is_older_than_its_cap(model: str, policy: str, path: str) -> None:
    """By the journal, and of tiles by what the store says of its pages."""
    steps = 9 if path == "heun" else 18
    bench = bench_of(model, path)
    bench.submit("r", **{**options(model, path, ACTIVE[policy]), "steps": steps})
    (sample,) = bench.loop.state.samples.values()
    store, trip, checked = bench.executor.store, sample.trip, 0
    while bench.step():
        done = bench.journal.actions.get("r/0", [])
        if trip.tiles is None or not done or ("r/0", 0, "tiles") not in store:
            continue
        owner, now = ("r/0", 0, "tiles"), len(done) - 1
        pages = [store.ages(owner, site, now) for site in store.figures().site_bytes]
        assert max(int(age_N2[:, 0].max()) for age_N2 in pages) == max(ages_of(done, trip)[-1])
        checked += 1
    assert bool(checked) == (trip.tiles is not None)
    actions = bench.made("r/0").actions
    assert len(actions) == trip.num_evaluations
    if policy in CAPS:
        oldest = max(map(max, ages_of(actions, trip)))
        assert oldest <= CAPS[policy]
        # A cap that nothing ever meets is none.
        assert oldest or policy == "never"
    else:
        # What is left of the path goes into equal gaps; none is wider than the cap.
        times = [t for t, a in zip(trip.times, actions, strict=True) if a.full] + [1.0]
        longest = max(b - a for a, b in pairwise(times))
        assert longest <= 0.3 + 1 / trip.num_evaluations


@torch.inference_mode()
def spoil(bench: Bench, sample: str, value: float) -> None:
    """Put one number into the latent of a sample."""
    slot = bench.executor._slots[sample]
    slot.latent_LC = slot.latent_LC.clone()
    slot.latent_LC[-1, 0] = value


@cases("broken")
def test_5_what_is_not_finite_fails_alone(
    model: str, policy: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    for value, after in ((torch.nan, 1), (torch.inf, 3)):
        bench = bench_of(model, path)
        bench.submit("bad", **{**options(model, path, ACTIVE[policy]), "num_images": 2})
        submit_strangers(bench, model, path, range(len(ACTIVE)), 0)
        bench.run(1 + after)
        spoil(bench, "bad/1", value)
        bench.run()
        assert list(bench.failed()) == ["bad"]
        assert isinstance(bench.failed()["bad"], NonFinite)
        assert_same(bench.pictures, strangers(model, path))
        assert (bench.executor.num_slots, bench.executor.store.owners) == (0, ())


@cases("idle")
def test_5_a_policy_that_hits_nothing_warns(
    model: str, policy: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench, spec = bench_of(model, path), EXACT[policy]
    bench.submit("r", **options(model, path, spec))
    bench.run()
    told = [record.getMessage() for record in caplog.records]
    if policy == "never":
        assert (bench.made("r/0").warning, told) == (None, [])
    else:
        assert (
            bench.made("r/0").warning == f"policy: {spec!r} had no effect; it found nothing to skip"
        )
        assert told == [f"policy {spec!r} found nothing to skip in r/0"]


@cases("cancelled")
def test_6_cancelling_at_any_point_leaks_nothing(model: str, policy: str, path: str) -> None:
    """`Bench.step` checks slots, pages and the store after every step."""
    made, request = alone(model, path, ACTIVE[policy]), options(model, path, ACTIVE[policy])
    bench = bench_of(model, path)
    # To encode, all evaluations, and to decode.
    points = range(len(made.actions) + 2)
    for point in points:
        bench.submit(f"gone{point}", **request, num_images=1 + point % 2)
    bench.submit("stays", **request)
    submit_strangers(bench, model, path, (5, 3), 0)
    for point in points:
        bench.loop.cancel(f"gone{point}")
        bench.step()
        assert not [name for name in bench.executor._slots if name.startswith(f"gone{point}/")]
    bench.run()
    assert (bench.executor.num_slots, bench.executor.store.owners) == (0, ())
    assert not bench.failed()
    assert np.array_equal(bench.pictures["stays/0"], made.picture)
    for name in ("stranger3/0", "stranger5/0"):
        assert np.array_equal(bench.pictures[name], strangers(model, path)[name])


SPECS = st.one_of(
    st.builds("whim_of_tiles:seed={}".format, st.integers(0, 99)),
    st.builds("whim_of_gates:seed={}".format, st.integers(0, 99)),
    st.builds(
        "interval:interval={},warmup={},order={},guidance={}".format,
        st.integers(1, 4),
        st.integers(1, 4),
        st.integers(0, 2),
        st.integers(1, 3),
    ),
    st.builds("first_block:threshold={},max_held={}".format, st.floats(0, 2), st.integers(1, 4)),
    st.builds("tea_cache:threshold={},c2={}".format, st.floats(0, 2), st.floats(-1, 1)),
    st.builds(
        "ras:share={},warmup={},interval={},max_age={},order={},side={}".format,
        st.floats(0, 1),
        st.integers(1, 3),
        st.integers(1, 5),
        st.integers(1, 3),
        st.integers(0, 2),
        st.integers(1, 5),
    ),
    st.builds(
        "refine:share={},warmup={},interval={},border={},side={}".format,
        st.floats(0, 1),
        st.integers(1, 3),
        st.integers(1, 5),
        st.integers(0, 1),
        st.integers(1, 4),
    ),
    st.builds(
        "{}:tolerance={}".format,
        st.sampled_from(["adaptive", "adaptive_tiles", "restless"]),
        st.floats(0, 1),
    ),
    st.just("never"),
)
JOINS = st.tuples(SPECS, st.integers(1, 20), st.integers(1, 2))
EVENTS = comings_and_goings(JOINS)


def check_comings_and_goings(
    model: str, path: str, events: Sequence[tuple[str, object]], store_bytes: int, max_rows: int
) -> None:
    bench = bench_of(model, path, store_bytes=store_bytes, max_rows=max_rows)
    asked: dict[str, dict[str, object]] = {}

    def join(number: int, what: tuple[str, int, int]) -> None:
        spec, kind, num_images = what
        asked[f"n{number}"] = {**options(model, path, spec, kind), "num_images": num_images}
        bench.submit(f"n{number}", **asked[f"n{number}"])

    bench.live(events, join)
    for error in bench.failed().values():
        assert isinstance(error, InvalidInput)
        assert f"the store (--store-mib) has {store_bytes:,} bytes" in str(error)
    for made in (event for event in bench.events if event.kind == "picture"):
        request = {**asked[made.request], "seed": 5 + made.index, "num_images": 1}
        again = bench_of(model, path)
        chosen = again.front.policies_of(again.front.request(**request))[0]
        again.submit("r", replay_of(chosen, made.actions), **request)
        again.run()
        assert again.made("r/0").actions == made.actions
        assert np.array_equal(again.pictures["r/0"], made.picture), made.request


PRESSED = (
    st.sampled_from(MODELS),
    st.sampled_from(tuple(PATHS)),
    EVENTS,
    st.sampled_from([1000, 60_000, 300_000, 1 << 24]),
    st.sampled_from([64, 600, 4096]),
)


@settings(max_examples=25, deadline=None)
@given(*PRESSED)
def test_whoever_comes_and_goes_every_picture_is_its_journal_replayed_alone(
    model: str, path: str, events: list[tuple[str, object]], store_bytes: int, max_rows: int
) -> None:
    """`Bench.step` checks slots, pages and the store after every step. In the smallest store gates
    find no room at all.
    """
    check_comings_and_goings(model, path, events, store_bytes, max_rows)


@pytest.mark.matrix
@settings(max_examples=400, deadline=None)
@given(*PRESSED)
def test_whoever_comes_and_goes_at_length(
    model: str, path: str, events: list[tuple[str, object]], store_bytes: int, max_rows: int
) -> None:
    check_comings_and_goings(model, path, events, store_bytes, max_rows)
