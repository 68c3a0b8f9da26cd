"""Patch parallel: parts that do not see each other make the same on one rank and on several, and
what is not cut is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from musiva.core.errors import ExecutionFailed, InvalidInput
from musiva.core.types import Action, Event, Level
from musiva.engine import InlineExecutor
from musiva.engine.actions import MOST_CUT, TOGETHER
from musiva.engine.journal import Resumption
from musiva.engine.patches import parts_of
from tests.contract.denoisers import CHANNELS, WIDTH
from tests.contract.driving import pipeline_of, selection
from tests.contract.test_bad_policies import doing
from tests.contract.test_paged import MODELS
from tests.contract.test_policies import ACTIVE, PATHS, alone, bench_of, options
from tests.contract.test_ranks import CLOSE, latent_of, ranked
from tests.contract.test_resumed import WHIMS, Told
from tests.stepping import Bench

CUT = tuple(name for name in MODELS if name != "unet")
SPECS = {
    **{name: ACTIVE[name] for name in ("never", "interval", "adaptive", "adaptive_tiles", "ras")},
    "whim_of_tiles1": WHIMS["whim_of_tiles1"],
}
DEGREES = {"two": 2, "three": 3, "four": 4}
SELECTED = selection(CUT, tuple(SPECS), tuple(PATHS), tuple(DEGREES))
# To encode.
FIRST = 1


def cases() -> list[object]:
    found = []
    for case in product(CUT, SPECS, PATHS, DEGREES):
        marks = () if case in SELECTED else (pytest.mark.matrix,)
        found.append(pytest.param(*case, marks=marks))
    return found


def submit(
    bench: Bench,
    name: str,
    asked: Mapping[str, object],
    *levels: Level,
    resumed: Mapping[int, Resumption | None] | None = None,
) -> None:
    """A request for which its policy keeps the highest quality that may be cut, or with levels."""
    chosen = levels or (Level(str(asked["policy"]), MOST_CUT),)
    bench.submit(name, resumed=resumed, levels=chosen, **asked)


@cache
def cut(model: str, path: str, spec: str, patches: int) -> Event:
    """The picture of a request in so many parts that has the engine of one rank to itself."""
    bench = bench_of(model, path, patches=patches)
    submit(bench, "r", options(model, path, spec))
    bench.run()
    assert (bench.executor.num_slots, bench.executor.store.owners) == (0, ())
    return bench.made("r/0")


def latents(bench: Bench, evaluations: int) -> Tensor:
    """[L, C]: of "r/0", after so many of its evaluations."""
    while bench.loop.state.samples["r/0"].evaluation < evaluations:
        assert bench.step()
    return bench.executor._slots["r/0"].latent_LC.clone()


def largest(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(("model", "policy", "path", "degree"), cases())
def test_ranks_make_what_one_makes_in_their_parts(
    model: str, policy: str, path: str, degree: str
) -> None:
    size, spec = DEGREES[degree], SPECS[policy]
    one = cut(model, path, spec, size)
    ran = [action for action in one.actions[TOGETHER:] if action.compute]
    if policy == "never":
        assert {action.patches for action in ran} == {size}
    with ranked(model, path, size, "patch", patches=size) as bench:
        submit(bench, "r", options(model, path, spec))
        bench.submit("other", **options(model, path, ACTIVE["ras"], 2))
        bench.run()
        assert not bench.failed()
        made = bench.made("r/0")
        assert not bench.step()
    assert made.actions == one.actions
    ours, theirs = latent_of(made), latent_of(one)
    assert np.abs(ours - theirs).max() < CLOSE * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("model", CUT)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_an_evaluation_of_ranks_is_that_of_one(model: str, size: int) -> None:
    """From the same latent, what a step of one solver makes of the prediction."""
    found = []
    for degree in (1, size):
        with ranked(model, "euler", degree, "patch", patches=size) as bench:
            submit(bench, "r", options(model, "euler", "never"))
            found.append((latents(bench, TOGETHER), latents(bench, TOGETHER + 1)))
    (before, expected), (ours, after) = found
    assert largest(ours, before) < 1e-5
    assert largest(after, expected) < 1e-5
    assert largest(after, before) > 1e-2


@pytest.mark.parametrize(("size", "patches"), [(2, 4), (2, 3), (3, 2)])
@pytest.mark.parametrize("policy", ["never", "ras"])
def test_any_number_of_ranks_may_have_the_parts(policy: str, size: int, patches: int) -> None:
    one = cut("joint", "euler", SPECS[policy], patches)
    with ranked("joint", "euler", size, "patch", patches=patches) as bench:
        submit(bench, "r", options("joint", "euler", SPECS[policy]))
        bench.run()
        made = bench.made("r/0")
    assert made.actions == one.actions
    ours, theirs = latent_of(made), latent_of(one)
    assert np.abs(ours - theirs).max() < CLOSE * max(1.0, np.abs(theirs).max())


def test_one_exchange_is_behind_the_forward() -> None:
    size = 3
    with ranked("cross", "euler", size, "patch", patches=size) as bench:
        submit(bench, "r", options("cross", "euler", "never"))
        latents(bench, TOGETHER + 1)
        slot, group = bench.executor._slots["r/0"], bench.executor.ranks.group
        group.sent_bytes = 0
        latents(bench, TOGETHER + 2)
        tokens = len(parts_of(slot.grid, None, None, size)[0])
        # Of two blocks and both branches; and whether all pages are there.
        floats = 2 * tokens * (2 * 2 * WIDTH + CHANNELS)
        assert group.sent_bytes == (size - 1) * (4 * floats + 8)


@torch.inference_mode()
def move(bench: Bench, tokens: Tensor) -> None:
    slot = bench.executor._slots["r/0"]
    slot.latent_LC = slot.latent_LC.index_add(0, tokens, torch.ones(len(tokens), CHANNELS))


@pytest.mark.parametrize("model", ["cross", "joint"])
def test_a_part_sees_the_others_an_evaluation_later(model: str) -> None:
    found, tokens = [], ()
    for moved in (False, True):
        bench = bench_of(model, "euler", patches=3)
        submit(bench, "r", options(model, "euler", "never"))
        latents(bench, TOGETHER + 1)
        tokens = parts_of(bench.executor._slots["r/0"].grid, None, None, 3)
        if moved:
            move(bench, tokens[1])
        found.append([latents(bench, TOGETHER + n) for n in (2, 3)])
    (plain, then), (moved, later) = found
    assert not torch.equal(moved[tokens[1]], plain[tokens[1]])
    for other in (tokens[0], tokens[2]):
        assert torch.equal(moved[other], plain[other])
        assert not torch.equal(later[other], then[other])


def test_parts_see_each_other_in_an_exact_run() -> None:
    """The test above is none where nothing would be seen anyway."""
    found, tokens = [], ()
    for moved in (False, True):
        bench = bench_of("cross", "euler")
        bench.submit("r", **options("cross", "euler", "never"))
        latents(bench, TOGETHER + 1)
        tokens = parts_of(bench.executor._slots["r/0"].grid, None, None, 3)
        if moved:
            move(bench, tokens[1])
        found.append(latents(bench, TOGETHER + 2))
    plain, moved = found
    assert not torch.equal(moved[tokens[0]], plain[tokens[0]])


@pytest.mark.parametrize("model", CUT)
def test_quality_100_is_never_cut(model: str) -> None:
    exact = (Level("never"),), (Level("never"), Level("never", MOST_CUT))
    for levels in exact:
        bench = bench_of(model, "euler", patches=3)
        submit(bench, "r", options(model, "euler", "never"), *levels)
        bench.run()
        made, dense = bench.made("r/0"), alone(model, "euler", "never")
        assert {action.patches for action in made.actions} == {1}
        assert np.array_equal(made.picture, dense.picture)


def test_gates_are_not_cut() -> None:
    made = cut("cross", "euler", ACTIVE["first_block"], 3)
    assert made.actions == alone("cross", "euler", ACTIVE["first_block"]).actions


@pytest.mark.parametrize("model", CUT)
def test_cut_and_exact_samples_are_as_alone(model: str) -> None:
    bench = bench_of(model, "euler", patches=3)
    submit(bench, "a", options(model, "euler", SPECS["ras"]))
    bench.submit("exact", **options(model, "euler", ACTIVE["ras"]))
    bench.run(3)
    submit(bench, "b", options(model, "euler", "never"))
    bench.submit("gates", **options(model, "euler", ACTIVE["first_block"]))
    bench.run()
    assert not bench.failed()
    for name, expected in (
        ("a", cut(model, "euler", SPECS["ras"], 3)),
        ("b", cut(model, "euler", "never", 3)),
        ("exact", alone(model, "euler", ACTIVE["ras"])),
        ("gates", alone(model, "euler", ACTIVE["first_block"])),
    ):
        made = bench.made(f"{name}/0")
        assert made.actions == expected.actions
        assert np.array_equal(made.picture, expected.picture), name


@pytest.mark.parametrize("degree", [1, 2])
def test_a_page_that_is_lost_is_computed(degree: int) -> None:
    with ranked("cross", "euler", degree, "patch", patches=3) as bench:
        submit(bench, "r", options("cross", "euler", "never"))
        latents(bench, TOGETHER + 1)
        store = bench.executor.store
        store.free(store.owners[0])
        bench.run()
        made = bench.made("r/0")
    patches = [action.patches for action in made.actions]
    assert patches == [1] * TOGETHER + [3, 1] + [3] * (len(patches) - TOGETHER - 2)


def test_without_room_for_pages_all_is_exact() -> None:
    bench = bench_of("cross", "euler", patches=3, store_bytes=1 << 10)
    submit(bench, "r", options("cross", "euler", "never"))
    bench.run()
    made, dense = bench.made("r/0"), alone("cross", "euler", "never")
    assert made.actions == dense.actions
    assert np.array_equal(made.picture, dense.picture)


def test_fewer_tokens_than_parts_are_not_cut() -> None:
    unit = pipeline_of("cross").unit
    tiny = {**options("cross", "euler", "never"), "size": (2 * unit, 2 * unit)}
    pictures = []
    for patches in (1, 5):
        bench = bench_of("cross", "euler", patches=patches)
        submit(bench, "r", tiny)
        bench.run()
        assert {action.patches for action in bench.made("r/0").actions} == {1}
        pictures.append(bench.made("r/0").picture)
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("model", CUT)
@pytest.mark.parametrize("policy", ["never", "whim_of_tiles1"])
def test_a_request_that_is_taken_over_comes_to_the_same_picture(model: str, policy: str) -> None:
    asked = options(model, "euler", SPECS[policy])
    made = cut(model, "euler", SPECS[policy], 3)
    for point in (2, 6, 8):
        told = Told()
        first = bench_of(model, "euler", told=told, patches=3)
        submit(first, "r", asked)
        first.run(FIRST + point)
        second = bench_of(model, "euler", patches=3)
        submit(second, "r", asked, resumed={0: told.resumption()})
        second.run()
        event = second.made("r/0")
        assert event.actions == made.actions
        assert np.array_equal(event.picture, made.picture), point


def test_another_degree_comes_to_where_it_was() -> None:
    """What was done in three parts is done in three parts again; what follows is its own."""
    told, done = Told(), TOGETHER + 3
    first = bench_of("cross", "euler", told=told, patches=3)
    submit(first, "r", options("cross", "euler", "never"))
    expected = latents(first, done)
    second = bench_of("cross", "euler", patches=1)
    asked = options("cross", "euler", "never")
    submit(second, "r", asked, resumed={0: told.resumption()})
    assert torch.equal(latents(second, done), expected)
    second.run()
    patches = [action.patches for action in second.made("r/0").actions]
    assert patches == [1] * TOGETHER + [3] * 3 + [1] * (len(patches) - done)


def test_ranks_of_another_form_compute_it_together() -> None:
    """They have pages of some heads alone."""
    with ranked("cross", "euler", 2, "ulysses", patches=2) as bench:
        submit(bench, "r", options("cross", "euler", "never"))
        bench.run()
        made = bench.made("r/0")
    assert {action.patches for action in made.actions} == {1}


def test_policies_do_not_say_it() -> None:
    bench = bench_of("cross", "euler", bad=doing(Action(patches=2)))
    bench.submit("r", **options("cross", "euler", "bad"))
    bench.run()
    error = bench.failed()["r"]
    assert isinstance(error, ExecutionFailed)
    assert "patches" in str(error)


def test_models_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(InvalidInput, match="ulysses or branches"):
        bench_of("unet", "euler", patches=2)
    with (
        pytest.raises(InvalidInput, match="ulysses or branches"),
        ranked("unet", "euler", 2, "patch"),
    ):
        pass
    with pytest.raises(InvalidInput, match="patches"):
        bench_of("cross", "euler", patches=0)
    InlineExecutor(pipeline_of("unet"), form="patch")


@pytest.mark.parametrize("policy", ["interval", "adaptive"])
def test_behind_a_skipped_evaluation_parts_see_too_little_of_each_other(policy: str) -> None:
    event = cut("joint", "euler", ACTIVE[policy], 2)
    before = zip(event.actions, event.actions[1:], strict=False)
    behind = [now for then, now in before if not then.compute and now.compute]
    assert behind
    assert {action.patches for action in behind} == {1}
