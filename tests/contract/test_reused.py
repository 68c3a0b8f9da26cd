"""Contract 11: what was computed before, here or elsewhere, gives the same picture by the same
actions, however much of it is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random

import numpy as np
import pytest
import torch

from musiva.core.types import DenoiseItem, Kind, StepPlan
from musiva.store import Cache, Page
from tests.contract.driving import pipeline_of, selection
from tests.contract.test_paged import MODELS
from tests.contract.test_patches import cut, submit
from tests.contract.test_policies import (
    ACTIVE,
    PATHS,
    alone,
    bench_of,
    options,
    strangers,
    submit_strangers,
)
from tests.contract.test_ranks import ranked
from tests.contract.test_resumed import WHIMS, Told
from tests.stepping import Bench

# Those whose samples have gates find nothing but prompts.
GATED = {"first_block", "tea_cache", *(name for name in WHIMS if "gates" in name)}
SPECS = {**ACTIVE, **WHIMS}
SELECTED = selection(tuple(MODELS), tuple(SPECS), tuple(PATHS))


class Forgetful(Cache):
    """Has some of its pages, as the draw has it."""

    def __init__(self, draw: Random, share: float) -> None:
        super().__init__(Cache.Config())
        self._draw, self._share = draw, share

    def find(self, key: str, saves: float | None = None, *, near: bool = False) -> Page | None:
        self.flush(10.0)
        # Whatever it saves.
        page = super().find(key, 1e9, near=near)
        return page if self._draw.random() < self._share else None


@pytest.fixture
def cache() -> Iterator[Cache]:
    cache = Forgetful(Random(0), 1.0)
    yield cache
    cache.close()


def cases() -> list[object]:
    found = []
    for case in product(MODELS, SPECS, PATHS):
        marks = () if case in SELECTED else (pytest.mark.matrix,)
        found.append(pytest.param(*case, marks=marks))
    return found


@pytest.mark.parametrize(("model", "policy", "path"), cases())
def test_11_what_is_found_gives_the_same_picture(model: str, policy: str, path: str) -> None:
    spec = SPECS[policy]
    made, request = alone(model, path, spec), options(model, path, spec)
    draw = Random(f"{model} {policy} {path}")
    for share in (1.0, 0.9, 0.7, 0.4):
        cache = Forgetful(draw, share)
        for turn in range(2):
            bench = bench_of(model, path, cache=cache)
            submit_strangers(bench, model, path, (draw.randrange(len(ACTIVE)),), 0)
            bench.submit("r", **request)
            bench.run()
            assert not bench.failed()
            event = bench.made("r/0")
            assert event.actions == made.actions, (share, turn)
            assert np.array_equal(event.picture, made.picture), (share, turn)
            if turn == 0 or policy in GATED:
                assert reused(bench) == 0
            elif share == 1.0 and not any(action.tiles for action in made.actions):
                assert reused(bench) == sum(action.compute for action in made.actions)
            elif share == 1.0:
                # Up to where tiles were wanted, and all of it had to be done.
                assert reused(bench) > 0
        cache.check_integrity()
        cache.close()


@pytest.mark.parametrize("policy", ["adaptive_tiles", "ras", "whim_of_tiles1", "whim_of_tiles2"])
@pytest.mark.parametrize("model", MODELS)
def test_pages_that_were_not_made_are_made_when_they_are_needed(
    model: str, policy: str, cache: Forgetful
) -> None:
    """The end of a run is computed whose beginning was found, wherever it ends."""
    path = "euler"
    spec = SPECS[policy]
    made, request = alone(model, path, spec), options(model, path, spec)
    first = bench_of(model, path, cache=cache)
    first.submit("r", **request)
    first.run()
    for point in range(1, len(made.actions)):
        bench = bench_of(model, path, cache=cache)
        bench.submit("r", **request)
        cache._share = 1.0
        bench.run(point)
        cache._share = 0.0
        bench.run()
        assert np.array_equal(bench.made("r/0").picture, made.picture), point


def test_behind_a_page_that_came_too_late_the_next_are_found(cache: Forgetful) -> None:
    pipeline, pictures = pipeline_of("cross"), []
    for late in (False, True):
        bench = Bench(pipeline, cache=cache)
        bench.submit("r", **EULER)
        if late:
            # Its words and two evaluations, and then not the third.
            bench.run(3)
            cache._share = 0.0
            bench.run(1)
            cache._share = 1.0
        bench.run()
        pictures.append(bench.made("r/0").picture)
    assert reused(bench) == 5
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("policy", ["never", "adaptive", "adaptive_tiles"])
def test_who_takes_over_finds_what_was_made_too(policy: str, cache: Forgetful) -> None:
    model, path, spec = "cross", "euler", SPECS[policy]
    made, request = alone(model, path, spec), options(model, path, spec)
    whole = bench_of(model, path, cache=cache)
    whole.submit("r", **request)
    whole.run()
    for share in (1.0, 0.5):
        told = Told()
        first = bench_of(model, path, told=told)
        first.submit("r", **request)
        first.run(5)
        cache._share = share
        # Of one that kept no account nothing is known.
        second = bench_of(model, path, cache=cache)
        second.submit("r", resumed={0: told.resumption()}, **request)
        second.run()
        # Of one that did, what it computed is there.
        cache._share, told = 0.0, Told()
        third = bench_of(model, path, told=told, cache=cache)
        third.submit("r", **request)
        third.run(5)
        cache._share = share
        fourth = bench_of(model, path, cache=cache)
        fourth.submit("r", resumed={0: told.resumption()}, **request)
        fourth.run()
        for bench in (second, fourth):
            assert np.array_equal(bench.made("r/0").picture, made.picture)
            assert bench.made("r/0").actions == made.actions
        assert reused(second) == 0
        assert reused(fourth) > 0 or share < 1.0


def reused(bench: Bench, name: str = "r/0") -> int:
    report = bench.made(name).report
    assert report is not None
    return report.reused


EULER = {"prompt": "a fox", "size": (32, 32), "sampler": "euler", "steps": 6, "guidance": 3.0}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 6),
        # They go on otherwise after the first evaluation.
        ({"guidance": 5.0}, 1),
        ({"policy": "interval:interval=2,warmup=2"}, 2),
        ({"prompt": "a cat"}, 0),
        ({"seed": 6}, 0),
        ({"size": (32, 40)}, 0),
        ({"guidance": 1.0}, 0),
        # Its first noise level is another one.
        ({"sampler": "dpm++2m"}, 0),
        ({"negative_prompt": "a dog"}, 0),
    ],
)
def test_only_what_is_the_same_is_found(
    change: dict[str, object], expected: int, cache: Forgetful
) -> None:
    pipeline = pipeline_of("cross")
    first = Bench(pipeline, cache=cache)
    first.submit("r", **EULER)
    first.run()
    edited = {**EULER, **change}
    alone, second = Bench(pipeline), Bench(pipeline, cache=cache)
    for bench in (alone, second):
        bench.submit("r", **edited)
        bench.run()
    assert np.array_equal(second.made("r/0").picture, alone.made("r/0").picture)
    assert reused(second) == expected


def test_tenants_have_nothing_in_common(cache: Forgetful) -> None:
    pipeline = pipeline_of("cross")
    for tenant, expected in (("one", 0), ("two", 0), ("one", 6)):
        bench = Bench(pipeline, cache=cache)
        bench.submit("r", tenant=tenant, **EULER)
        bench.run()
        assert reused(bench) == expected


def test_weights_and_threads_are_in_every_name(cache: Forgetful) -> None:
    pipeline = pipeline_of("cross")
    first = Bench(pipeline, cache=cache)
    first.submit("r", **EULER)
    first.run()
    weight = next(iter(pipeline.denoiser.parameters()))
    before = weight.detach().clone()
    with torch.no_grad():
        weight.view(-1)[0] += 1e-3
    try:
        other = Bench(pipeline, cache=cache)
        other.submit("r", **EULER)
        other.run()
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert reused(other) == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert Bench(pipeline, cache=cache).executor.root != first.executor.root
    finally:
        torch.set_num_threads(threads)
    assert Bench(pipeline, cache=cache).executor.root == first.executor.root


def test_latents_that_were_given_are_named_by_their_bytes(cache: Forgetful) -> None:
    pipeline = pipeline_of("cross")
    shape = pipeline.latent_shape((32, 32))
    for seed, expected in ((1, 0), (2, 0), (1, 6)):
        bench = Bench(pipeline, cache=cache)
        latent = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        bench.submit("r", latents=[latent], **EULER)
        bench.run()
        assert reused(bench) == expected


def test_what_fails_is_not_published(cache: Forgetful) -> None:
    pipeline = pipeline_of("cross")
    latent = torch.full(pipeline.latent_shape((32, 32)), float("nan"))
    bench = Bench(pipeline, cache=cache)
    bench.submit("r", latents=[latent], **EULER)
    bench.run()
    cache.flush()
    # The two prompts alone.
    assert cache.figures().published == 2


def test_ranks_take_what_all_of_them_find() -> None:
    """Of two ranks one may have lost a page: then both compute."""
    spec = ACTIVE["adaptive_tiles"]
    pictures, found = [], []
    caches = [Forgetful(Random(seed), 0.8) for seed in (1, 2)]
    for _ in range(2):
        with ranked("joint", "euler", 2, caches=caches) as bench:
            bench.submit("r", **options("joint", "euler", spec))
            bench.run()
            pictures.append(bench.made("r/0").picture)
            found.append(reused(bench))
    assert np.array_equal(*pictures)
    assert found[0] == 0 < found[1]
    for one in caches:
        one.close()


def test_what_was_found_says_nothing_of_how_long_computing_takes(cache: Forgetful) -> None:
    pipeline = pipeline_of("cross")
    for first in (True, False):
        bench = Bench(pipeline, cache=cache)
        bench.submit("r", **EULER)
        bench.run()
        assert [result.strayed for result in bench.journal.results] == [not first] * 6
        # Decoding is never found.
        assert set(bench.loop.state.drift.kinds) == (set(Kind) if first else {Kind.DECODE})


def test_the_plan_of_a_request_names_its_tenant() -> None:
    bench = Bench(pipeline_of("cross"))
    bench.submit("r", tenant="one", **EULER)
    plans: list[StepPlan] = []
    bench.loop._observe = lambda plan, result: plans.append(plan)
    bench.run()
    items = [item for plan in plans for item in plan.items if isinstance(item, DenoiseItem)]
    assert [item.tenant for item in items] == ["one"] * 6


def test_strangers_are_as_without_a_cache(cache: Forgetful) -> None:
    model, path = "cross", "euler"
    for _ in range(2):
        bench = bench_of(model, path, cache=cache)
        submit_strangers(bench, model, path, range(len(ACTIVE)), 0)
        pictures = bench.run()
        for name, picture in strangers(model, path).items():
            assert np.array_equal(pictures[name], picture), name


@pytest.mark.parametrize("policy", ["never", "adaptive_tiles", "ras"])
def test_parts_that_do_not_see_each_other_are_found_and_gone_on_with(
    policy: str, cache: Forgetful
) -> None:
    model, path, patches = "joint", "euler", 3
    asked = options(model, path, ACTIVE[policy])
    whole = cut(model, path, ACTIVE[policy], patches)
    assert any(action.patches == patches for action in whole.actions)
    for point in range(1 + len(whole.actions)):
        bench = bench_of(model, path, patches=patches, cache=cache)
        submit(bench, "r", asked)
        cache._share = 1.0
        bench.run(point)
        cache._share = 0.0 if point < len(whole.actions) else 1.0
        bench.run()
        assert np.array_equal(bench.made("r/0").picture, whole.picture), point
        assert bench.made("r/0").actions == whole.actions
        # The first step encodes.
        assert bool(reused(bench)) == (point > 1)
