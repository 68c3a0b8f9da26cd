"""Contract 7: several ranks make what one makes, under every policy, on every denoiser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product

import numpy as np
import pytest

from musiva.comm import ThreadGroup
from musiva.core.errors import RankLost
from musiva.core.types import Event
from musiva.engine import InlineExecutor
from musiva.engine.fleet.group import Leader, follow
from musiva.engine.fleet.launcher import pair_of_queues
from musiva.engine.journal import Entry
from musiva.parallel import Form
from musiva.store import Cache
from tests.contract.driving import pipeline_of, selection
from tests.contract.test_paged import MODELS
from tests.contract.test_policies import ACTIVE, PATHS, alone, bench_of, options
from tests.contract.test_resumed import WHIMS
from tests.stepping import Bench

SPECS = {**ACTIVE, **WHIMS}
DEGREES = {"two": 2, "three": 3}
FORMS: dict[str, Form] = {"by_tokens": "ulysses", "by_branch": "branches", "by_patch": "patch"}
SELECTED = selection(tuple(MODELS), tuple(SPECS), tuple(PATHS), tuple(DEGREES), tuple(FORMS))
TILED = ("ras", "refine", "adaptive_tiles", "whim_of_tiles1", "whim_of_tiles2")
# The latents of one rank and of several differ by rounding, which many steps enlarge.
CLOSE = 2e-3


def cases() -> list[object]:
    found = []
    for case in product(MODELS, SPECS, PATHS, DEGREES, FORMS):
        if case[0] == "unet" and case[1] in TILED and case[4] == "by_tokens":
            continue  # its ranks have whole strips
        if case[0] == "unet" and case[4] == "by_patch":
            continue  # it is refused
        marks = () if case in SELECTED else (pytest.mark.matrix,)
        found.append(pytest.param(*case, marks=marks))
    return found


@contextmanager
def ranked(
    model: str,
    path: str,
    degree: int,
    form: Form = "ulysses",
    *,
    patches: int = 1,
    told: Callable[[Entry], None] | None = None,
    caches: Sequence[Cache | None] = (None, None, None, None),
) -> Iterator[Bench]:
    """A bench whose plans are run by several ranks, threads each."""
    bench = bench_of(model, path, patches=patches, ranks=degree, told=told)
    pipeline = pipeline_of(model, clipped=path == "ddim")
    groups = ThreadGroup.all_of(degree)
    own = [
        InlineExecutor(pipeline, store_bytes=1 << 24, group=group, form=form, cache=one)
        for group, one in zip(groups, caches, strict=False)
    ]
    channels = [pair_of_queues() for _ in own[1:]]

    def body(executor: InlineExecutor, channel: object) -> None:
        with suppress(RankLost):
            follow(executor, channel)  # type: ignore[arg-type]

    threads = [
        threading.Thread(target=body, args=(executor, there))
        for executor, (_, there) in zip(own[1:], channels, strict=True)
    ]
    for thread in threads:
        thread.start()
    bench.executor = own[0]
    bench.loop.executor = Leader(own[0], [here for here, _ in channels])
    try:
        yield bench
    finally:
        for here, _ in channels:
            here.close()
        groups[0].leave()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)


def latent_of(event: Event) -> np.ndarray:
    """What a `ContractPipeline` makes a picture of."""
    picture = event.picture
    assert isinstance(picture, np.ndarray)
    levels = np.moveaxis(picture, -1, 0).reshape(-1)
    return levels[: len(levels) // 4 * 4].copy().view(np.float32)


@pytest.mark.parametrize(("model", "policy", "path", "degree", "form"), cases())
def test_7_several_ranks_make_what_one_makes(
    model: str, policy: str, path: str, degree: str, form: str
) -> None:
    spec = SPECS[policy]
    one = alone(model, path, spec)
    with ranked(model, path, DEGREES[degree], FORMS[form]) as bench:
        bench.submit("r", **options(model, path, spec))
        other = "interval" if model == "unet" else "ras"
        bench.submit("other", **options(model, path, ACTIVE[other], 2))
        bench.run(4)
        bench.submit("late", **options(model, path, ACTIVE["first_block"], 3))
        bench.run()
        assert not bench.failed()
        made = bench.made("r/0")
        # Followers have been told of its end, and check what they keep when they are asked to.
        assert not bench.step()
    assert made.actions == one.actions
    if form == "by_branch" and spec not in (ACTIVE["first_block"], ACTIVE["tea_cache"]):
        # Nothing is summed in another order, but what gates measure.
        assert np.array_equal(made.picture, one.picture)
    ours, theirs = latent_of(made), latent_of(one)
    assert np.abs(ours - theirs).max() < CLOSE * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("policy", ["never", "first_block", "tea_cache", "adaptive"])
def test_ranks_may_have_whole_frames(policy: str) -> None:
    one = alone("video", "euler", ACTIVE[policy])
    with ranked("video", "euler", 2, "dynamic") as bench:
        bench.submit("r", **options("video", "euler", ACTIVE[policy]))
        bench.submit("other", **options("video", "euler", ACTIVE["interval"], 2))
        bench.run()
        made = bench.made("r/0")
    assert made.actions == one.actions
    ours, theirs = latent_of(made), latent_of(one)
    assert np.abs(ours - theirs).max() < CLOSE * max(1.0, np.abs(theirs).max())


def test_the_same_ranks_make_the_same_bytes() -> None:
    found = []
    for order in ((0, 1), (1, 0)):
        with ranked("joint", "euler", 2) as bench:
            for i in order:
                bench.submit(f"r{i}", **options("joint", "euler", ACTIVE["adaptive"], i))
            bench.run()
            found.append(dict(bench.pictures))
    for name, picture in found[0].items():
        assert np.array_equal(picture, found[1][name])


def test_a_picture_that_is_too_small_to_be_shared_is_made_by_all() -> None:
    unit = pipeline_of("cross").unit
    tiny = {"prompt": "a", "size": (2 * unit, 2 * unit), "steps": 6, "policy": ACTIVE["ras"]}
    alone_ = bench_of("cross", "euler")
    alone_.submit("r", **tiny)
    alone_.run()
    with ranked("cross", "euler", 5) as bench:
        bench.submit("r", **tiny)
        bench.run()
        ours, theirs = latent_of(bench.made("r/0")), latent_of(alone_.made("r/0"))
    assert np.abs(ours - theirs).max() < CLOSE * max(1.0, np.abs(theirs).max())


def test_what_is_not_finite_fails_on_all_ranks_alone() -> None:
    with ranked("cross", "euler", 2) as bench:
        bench.submit("bad", **options("cross", "euler", "never"))
        bench.submit("good", **options("cross", "euler", ACTIVE["tea_cache"], 1))
        bench.run(3)
        slot = bench.executor._slots["bad/0"]
        slot.latent_LC = slot.latent_LC * float("nan")
        bench.run()
        assert list(bench.failed()) == ["bad"]
        assert "good/0" in bench.pictures


def test_a_lost_rank_ends_the_loop_and_fails_no_request() -> None:
    with ranked("cross", "euler", 2) as bench:
        bench.submit("r", **options("cross", "euler", "never"))
        bench.run(3)
        bench.loop.executor._followers[0].cut()  # type: ignore[attr-defined]
        with pytest.raises(RankLost):
            bench.run()
        assert not bench.failed()
