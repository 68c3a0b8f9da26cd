"""Branches of guidance and tokens divided at once: four ranks and more make what one makes, and all
of them have the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from musiva.comm import Group, Lone, ThreadGroup, in_threads, launch
from musiva.core.errors import InvalidInput
from musiva.core.types import Action, DenoiseItem, Kind, StepPlan
from musiva.engine import InlineExecutor
from musiva.engine.gate import Passage
from musiva.engine.measured import Measurements
from musiva.engine.pipeline import Pipeline
from musiva.engine.ranks import Ranks
from musiva.engine.runner import PlainRun
from musiva.parallel import Form
from tests.contract.driving import pipeline_of
from tests.contract.test_apart import NAMES, submit, were_alone
from tests.contract.test_policies import ACTIVE, bench_of, options
from tests.contract.test_ranks import CLOSE, latent_of, ranked
from tests.contract.test_resumed import WHIMS
from tests.stepping import Bench

BOTH: Form = "branches+ulysses"
SPECS = {**ACTIVE, **WHIMS}
# Of a prediction, over that of one rank.
EXACT = 1e-5
# By model, policy and path; with guidance 1 there is one branch.
CASES = [
    ("cross", "whim_of_tiles1", "euler", 4),
    ("cross", "tea_cache", "euler", 6),
    ("joint", "first_block", "euler", 4),
    ("joint", "adaptive_tiles", "dpm++2m", 6),
    ("video", "ras", "euler", 4),
    ("video", "never", "heun", 4),
    ("unet", "interval", "euler", 4),
    ("unet", "whim_of_gates1", "ddim", 4),
    ("pixart", "refine", "euler", 4),
]


@dataclass
class Seen:
    """Of a rank. predictions: of each branch, in the order of evaluations, by sample. sent: bytes,
    by step.
    """

    predictions: dict[str, list[list[Tensor]]] = field(default_factory=dict)
    actions: dict[str, list[Action | None]] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)


class Watched(InlineExecutor):
    """Tells what the model says."""

    seen: Seen

    def _take(self, passage: Passage, told: Measurements) -> Tensor | None:
        several = self.seen.predictions.setdefault(passage.item.sample, [])
        several.append([x_LC.clone() for x_LC in passage.predictions])
        self.seen.actions.setdefault(passage.item.sample, []).append(passage.action)
        return super()._take(passage, told)


def made_by(
    group: Group, pipeline: Pipeline, plans: Sequence[StepPlan], lost: StepPlan | None = None
) -> Seen:
    """What a rank has after these plans. lost: before which the last rank lets go of all pages."""
    executor = Watched(pipeline, store_bytes=1 << 24, group=group, form=BOTH)
    executor.seen = Seen()
    for plan in plans:
        if plan is lost and group.rank == group.size - 1:
            for owner in executor.store.owners:
                executor.store.free(owner)
        group.sent_bytes = 0
        executor.execute(plan)
        executor.seen.sent.append(group.sent_bytes)
    executor.check_integrity([])
    return executor.seen


def made_in_a_process(group: Group, model: str, plans: Sequence[StepPlan]) -> Seen:
    return made_by(group, pipeline_of(model), plans)


def planned(bench: Bench) -> list[StepPlan]:
    """Until nothing is left to do."""
    plans: list[StepPlan] = []
    execute = bench.executor.execute

    def also(plan: StepPlan):
        plans.append(plan)
        return execute(plan)

    bench.executor.execute = also  # type: ignore[method-assign]
    bench.run()
    assert not bench.failed()
    return plans


def plans_of(model: str, path: str, *requests: Mapping[str, object]) -> list[StepPlan]:
    bench = bench_of(model, path)
    for i, asked in enumerate(requests):
        bench.submit(f"r{i}", **asked)
    return planned(bench)


def items_of(plan: StepPlan) -> list[DenoiseItem]:
    return [item for item in plan.items if isinstance(item, DenoiseItem) and item.computes]


def check_same(found: Sequence[Seen], expected: Seen) -> None:
    """Ranks have the same bytes, and what one rank has but for rounding."""
    for seen in found:
        assert seen.actions == expected.actions
        for sample, several in expected.predictions.items():
            for ours, first, theirs in zip(
                seen.predictions[sample], found[0].predictions[sample], several, strict=True
            ):
                for x, same, y in zip(ours, first, theirs, strict=True):
                    assert torch.equal(x, same)
                    assert (x - y).abs().max() < EXACT * max(1.0, float(y.abs().max()))


@pytest.mark.parametrize(("model", "policy", "path", "size"), CASES)
def test_halves_make_what_one_rank_makes(model: str, policy: str, path: str, size: int) -> None:
    """Of a sample alone, with others of other policies, and of what is left when these are done."""
    other = "interval" if model == "unet" else "ras"
    plans = plans_of(
        model,
        path,
        options(model, path, SPECS[policy]),
        {**options(model, path, ACTIVE[other], 1), "steps": 4},
        {**options(model, path, ACTIVE["first_block"], 2), "steps": 4},
    )
    assert any(len(items_of(plan)) == 3 for plan in plans)
    assert any(0 < len(items_of(plan)) < 3 for plan in plans)
    pipeline = pipeline_of(model, clipped=path == "ddim")
    check_same(in_threads(made_by, size, pipeline, plans), made_by(Lone(), pipeline, plans))


@pytest.mark.matrix
def test_processes_make_what_threads_make_also_where_half_of_them_have_nothing() -> None:
    """A policy that borrows the unconditional branch leaves it to nobody."""
    asked = {**options("cross", "euler", ACTIVE["interval"]), "steps": 5}
    plans = plans_of("cross", "euler", asked)
    borrowed = [bool(items) and items[0].actions[-1].borrow for items in map(items_of, plans)]
    assert any(borrowed)
    expected = made_by(Lone(), pipeline_of("cross"), plans)
    processes = launch(made_in_a_process, 4, "cross", plans)
    threads = in_threads(made_by, 4, pipeline_of("cross"), plans)
    check_same(processes, expected)
    check_same(threads, expected)
    assert [one.sent for one in processes] == [one.sent for one in threads]
    # A half that has nothing sends nothing.
    quiet = [one.sent[borrowed.index(True)] for one in threads]
    assert sorted(quiet)[:2] == [0, 0]
    assert sorted(quiet)[2] > 0


@pytest.mark.parametrize("policy", ["ras", "first_block"])
def test_what_one_rank_has_lost_all_do_without(policy: str) -> None:
    """The ranks of the other half too, which have all of theirs."""
    plans = plans_of("joint", "euler", options("joint", "euler", ACTIVE[policy]))
    pipeline = pipeline_of("joint")
    actions = made_by(Lone(), pipeline, plans).actions["r0/0"]
    first = next(i for i, one in enumerate(actions) if one and (one.tiles or one.held))
    assert actions[first] is not None
    lost = [plan for plan in plans if items_of(plan)][first]
    found = in_threads(made_by, 4, pipeline, plans, lost)
    check_same(found[1:], found[0])
    assert found[0].actions["r0/0"][first] == replace(actions[first], tiles=None, held=None)


def test_what_leaves_a_rank_is_that_of_its_half_and_each_prediction_once() -> None:
    """Two blocks of the image to itself, of a branch in each half."""
    model = pipeline_of("cross").denoiser
    asked = {**options("cross", "euler", "never"), "size": (8, 8), "steps": 2}
    plans = plans_of("cross", "euler", asked)
    found = in_threads(made_by, 4, pipeline_of("cross"), plans)
    tokens, half = 64, 2
    around = 2 * 4 * (tokens * 32 * 4) * (half - 1) // half**2
    predicted = 3 * (tokens // half) * model.out_channels * 4
    denoised = [i for i, plan in enumerate(plans) if plan.kind is Kind.DENOISE]
    assert denoised
    for seen in found:
        assert {seen.sent[i] for i in denoised} == {around + predicted}


def undivided(name: str) -> Pipeline:
    pipeline = pipeline_of(name)
    model = copy(pipeline.denoiser)
    model.__class__ = type("Whole", (type(model),), {"divided": ()})
    return replace(pipeline, denoiser=model)


def test_of_what_cannot_be_divided_ranks_have_whole_branches() -> None:
    """As with "branches": to the byte what one rank makes."""
    plans = plans_of(
        "cross",
        "euler",
        options("cross", "euler", ACTIVE["adaptive"]),
        options("cross", "euler", "never", 1),
    )
    pipeline = undivided("cross")
    expected = made_by(Lone(), pipeline, plans)
    found = in_threads(made_by, 4, pipeline, plans)
    check_same(found, expected)
    for sample, several in expected.predictions.items():
        for ours, theirs in zip(found[3].predictions[sample], several, strict=True):
            assert all(map(torch.equal, ours, theirs))
    items = next(items for plan in plans if (items := items_of(plan)))
    own = [
        Ranks(pipeline.denoiser, PlainRun(), one, BOTH).own(items) for one in ThreadGroup.all_of(4)
    ]
    assert sorted(mine[0].computed for mine in own) == [(), (), (0,), (1,)]


def test_a_picture_that_is_too_small_for_a_half_is_made_by_all() -> None:
    unit = pipeline_of("cross").unit
    tiny = {"prompt": "a", "size": (2 * unit, 2 * unit), "steps": 4, "policy": ACTIVE["ras"]}
    plans = plans_of("cross", "euler", tiny, options("cross", "euler", "never"))
    pipeline = pipeline_of("cross")
    found = in_threads(made_by, 10, pipeline, plans)
    check_same(found, made_by(Lone(), pipeline, plans))


def test_the_number_of_ranks_of_a_sample_changes_as_others_come() -> None:
    """Shared by both halves while it is alone, and one rank's among four."""
    one = bench_of("joint", "euler")
    submit(one, "joint", "adaptive", 0)
    one.run()
    with ranked("joint", "euler", 4, BOTH) as bench:
        submit(bench, "joint", "adaptive", 0)
        bench.run(3)
        for seed in (1, 2, 3):
            submit(bench, "joint", "adaptive", seed)
        bench.run()
        assert not bench.failed()
        event = bench.made("r/0")
        assert {True, False} == {*were_alone(event)}
        assert True in were_alone(bench.made(f"{NAMES[3]}/0"))
    ours, theirs = latent_of(event), latent_of(one.made("r/0"))
    assert np.abs(ours - theirs).max() < CLOSE * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_ranks_that_are_no_two_halves_of_several_are_refused(size: int) -> None:
    told = f"degree: got {size}; allowed: 1, or an even number from 4 with form {BOTH}"
    pipeline = pipeline_of("cross")
    with pytest.raises(InvalidInput, match=re.escape(told)):
        InlineExecutor(pipeline, group=ThreadGroup.all_of(size)[0], form=BOTH)
    InlineExecutor(pipeline, form=BOTH)
