"""Clusters as numbers, and what a step takes the ranks of a worker, against arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from musiva.core.errors import InvalidInput
from musiva.core.types import Kind, StepPlan
from musiva.engine import Intake, Pipeline, Scheduler, StepLoop, Workers, load_pipeline
from musiva.engine.scheduler.prices import Tariff, work_of
from musiva.parallel import rank_of
from musiva.perf.scale import Cluster, Link, Sends, Setting
from musiva.perf.scale.price import price
from musiva.perf.traffic import Asked, SimulatedExecutor, VirtualClock, Wanted
from tests.costs import linear_cost

ROW = 1e-3
SENDS = Sends(row=100.0, attentions=3, switches=2, prediction=7.0)


def test_a_link_takes_its_latency_and_then_the_bytes() -> None:
    link = Link(bandwidth=1e9, latency=1e-3)
    assert link.seconds(5e8) == pytest.approx(0.501)
    assert link.seconds(5e8, messages=4) == pytest.approx(0.504)
    assert Link().seconds(1e12, messages=9) == 0.0


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Link(bandwidth=0.0), "bandwidth: got 0.0; allowed: bytes a second, above 0"),
        (lambda: Link(bandwidth=float("nan")), "bandwidth: got nan"),
        (lambda: Link(latency=-1.0), "latency: got -1.0"),
        (lambda: Cluster(nodes=0), "nodes: got 0"),
        (lambda: Cluster(cores=0), "cores: got 0"),
        (lambda: Cluster(rate=0.0), "rate: got 0.0"),
        (lambda: Cluster(company=-0.1), "company: got -0.1"),
        (lambda: Cluster(devices=8).check(1, 3), "degree: got 3; allowed: what divides 8"),
        (lambda: Cluster(devices=8).check(5, 2), "workers: got '5 of 2 ranks'; allowed: at most 8"),
    ],
)
def test_what_cannot_be_is_refused(made, told: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{told}"):
        made()


def test_ranks_of_a_node_talk_over_what_is_inside() -> None:
    """Of 8 ranks in two nodes of 4 each sends 3 / 7 to its own node, and all 4 together the rest
    over the one connection of the node.
    """
    inside, between = Link(bandwidth=100.0, latency=0.1), Link(bandwidth=10.0, latency=0.2)
    cluster = Cluster(nodes=2, devices=4, inside=inside, between=between)
    assert cluster.exchange(1, 70.0, 3) == 0.0
    assert cluster.exchange(4, 60.0, 3) == pytest.approx(60.0 / 100.0 + 3 * 0.1)
    assert cluster.exchange(8, 70.0, 3) == pytest.approx(4 * 40.0 / 10.0 + 3 * 0.2)
    assert list(cluster.nodes_of(1, 4)) == [1]
    assert list(cluster.nodes_of(0, 8)) == [0, 1]


def test_ranks_share_cores() -> None:
    plain = Cluster(devices=4, cores=2)
    assert [plain.speed(busy) for busy in (1, 2, 3, 4)] == [1.0, 1.0, 2 / 3, 0.5]
    crowded = replace(plain, company=0.25)
    assert [crowded.speed(busy) for busy in (1, 2, 4)] == pytest.approx([1.0, 0.8, 0.4])
    assert Cluster(devices=512).speed(512) == 1.0


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def step(pipeline: Pipeline) -> tuple[StepPlan, StepLoop]:
    """A plan of an evaluation of two samples, one of them guided, and the loop that made it."""
    # Steps that cost something have packs of both.
    clock, cost = VirtualClock(), linear_cost(row=ROW, step=1.0)
    executor = SimulatedExecutor(cost, clock)
    loop = StepLoop(executor, Scheduler.Config(cost=cost).build(), clock=clock.now)
    executor.state = loop.state
    intake = Intake(pipeline, tariff=Tariff(cost))
    for i, size in enumerate(((48, 32), (64, 64))):
        asked = Asked(at=0.0, prompt="a fox", seed=i, size=size, steps=4)
        wanted = Wanted.of(intake, f"r{i}", asked)
        if i:
            wanted = replace(wanted, request=replace(wanted.request, guidance=1.0), rows=64)
        wanted.submit(loop, 0.0)
    while (plan := loop.scheduler.schedule(loop.state, 0.0)).kind is not Kind.DENOISE:
        loop.enter(plan, executor.execute(plan))
    assert len(plan.items) == 2
    return plan, loop


def taken(
    step: tuple[StepPlan, StepLoop],
    degree: int,
    form: str,
    cluster: Cluster | None = None,
    **links: Link,
) -> float:
    setting = Setting(
        workers=Workers(count=1, degree=degree, form=form),  # type: ignore[arg-type]
        cluster=cluster or Cluster(devices=degree, rate=2.0, **links),
        scheduler=Scheduler.Config(cost=linear_cost(row=ROW)),
        sends=SENDS,
    )
    plan, loop = step
    found = price(plan, loop.state, setting)
    assert found.rows == work_of(plan, loop.state).rows
    return found.seconds


# 24 tokens are 32 rows, twice; 64 are 64.
ROWS = 2 * 32 + 64


def test_one_rank_takes_what_the_cost_model_says(step: tuple[StepPlan, StepLoop]) -> None:
    assert taken(step, 1, "ulysses") == pytest.approx(ROWS * ROW / 2.0)


@pytest.mark.parametrize("degree", [2, 4, 8])
def test_ulysses_sends_four_of_all_activations(
    step: tuple[StepPlan, StepLoop], degree: int
) -> None:
    link = Link(bandwidth=1e6, latency=1e-2)
    compute = -(-ROWS // degree) * ROW / 2.0
    around = SENDS.attentions * 4 * ROWS * SENDS.row * (degree - 1) / degree**2
    joined = (degree - 1) * -(-ROWS // degree) * SENDS.prediction
    messages = 2 * SENDS.attentions + 1
    expected = compute + (around + joined) / 1e6 + messages * 1e-2
    assert taken(step, degree, "ulysses", inside=link) == pytest.approx(expected)


def test_dynamic_sends_half_of_that_for_columns_alone(step: tuple[StepPlan, StepLoop]) -> None:
    link = Link(bandwidth=1e6)
    around = SENDS.switches * 2 * ROWS * SENDS.row * 3 / 16
    joined = 3 * ROWS // 4 * SENDS.prediction
    expected = ROWS // 4 * ROW / 2.0 + (around + joined) / 1e6
    assert taken(step, 4, "dynamic", inside=link) == pytest.approx(expected)


def test_branches_send_predictions_alone(step: tuple[StepPlan, StepLoop]) -> None:
    """The rank that has most to do is waited for."""
    own = [0, 0]
    for sample, branches, rows in (("r0/0", 2, 32), ("r1/0", 1, 64)):
        for branch in range(branches):
            own[rank_of(sample, branch, 2)] += rows
    assert sorted(own) == [32, 96]
    link = Link(bandwidth=1e6, latency=1e-2)
    expected = 96 * ROW / 2.0 + 96 * SENDS.prediction / 1e6 + 1e-2
    assert taken(step, 2, "branches", inside=link) == pytest.approx(expected)


@pytest.mark.parametrize("degree", [4, 8])
def test_halves_send_activations_inside_and_predictions_to_all(
    step: tuple[StepPlan, StepLoop], degree: int
) -> None:
    """The half with most to do is waited for; in a node of its own it sends no rows out of it."""
    each, half = 96, degree // 2
    inside, between = Link(bandwidth=1e6, latency=1e-2), Link(bandwidth=1e5, latency=1e-1)
    around = SENDS.attentions * 4 * each * SENDS.row * (half - 1) / half**2
    compute = each // half * ROW / 2.0 + around / 1e6 + 2 * SENDS.attentions * 1e-2
    joined = (degree - 1) * (each // half) * SENDS.prediction
    expected = compute + joined / 1e6 + 1e-2
    form = "branches+ulysses"
    assert taken(step, degree, form, inside=inside) == pytest.approx(expected)
    # Of what all get half goes over the one connection of each node, that of all its ranks.
    out = half * joined * half / (degree - 1)
    apart = Cluster(nodes=2, devices=half, rate=2.0, inside=inside, between=between)
    expected = compute + out / 1e5 + 1e-1
    assert taken(step, degree, form, cluster=apart) == pytest.approx(expected)


def test_a_form_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^form: got 'dynamic'"):
        Setting(
            workers=Workers(count=1, degree=2, form="dynamic"),
            cluster=Cluster(devices=2),
            scheduler=Scheduler.Config(cost=linear_cost()),
        )
