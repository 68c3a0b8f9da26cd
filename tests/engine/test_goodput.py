"""The scheduler `goodput`, over a machine that is made up: order, levels, admission, fairness."""

from __future__ import annotations

import contextlib
import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.costs import linear_cost
from tests.engine.site import DENSE, ROWS, STEPS, Site

from musiva.core.errors import InvalidInput, Overloaded
from musiva.core.types import DenoiseItem, Level, Path, Request
from musiva.engine import Scheduler
from musiva.policy import Adaptive, Trip


def test_with_time_enough_all_is_dense() -> None:
    site = Site()
    name = site.submit(deadline=10.0)
    site.run()
    report = site.report(name)
    assert (report.promised, report.used, report.deadline_met) == (60, 100, True)
    assert report.denoise == pytest.approx(STEPS * ROWS * 1e-3, rel=0.01)


def test_a_tight_deadline_is_met_by_a_lower_level() -> None:
    site = Site()
    name = site.submit(deadline=0.5 * DENSE)
    site.run()
    report = site.report(name)
    assert report.deadline_met
    assert 60 <= report.used < 100
    assert site.finished[name] <= 0.5 * DENSE


def test_levels_go_down_in_a_burst_and_up_again_behind_it() -> None:
    site = Site()
    first = site.submit(deadline=1.6 * DENSE)
    site.run(0.3 * DENSE)
    burst = [site.submit(deadline=1.6 * DENSE) for _ in range(3)]
    site.run()
    site.clock.advance(20 * DENSE)
    late = site.submit(deadline=20 * DENSE)
    site.run()
    assert all(site.report(name).deadline_met for name in (first, *burst, late))
    items = (i for p in site.plans for i in p.items if isinstance(i, DenoiseItem))
    before = [item.level for item in items if item.sample == "r0/0"]
    assert before[0] == 0
    assert max(before) > 0
    assert site.report(late).used == 100


def test_what_surprises_least_goes_down_first() -> None:
    site = Site()
    names = [site.submit(deadline=1.9 * DENSE) for _ in range(2)]
    site.run(0.35 * DENSE)
    calm, wild = (site.loop.state.samples[f"{n}/0"] for n in names)
    for sample, surprise in ((calm, -0.5), (wild, 0.5)):
        memory = sample.memory
        sample.memory = type(memory)(memory.computed, memory.last, surprise)
    plan = site.loop.scheduler.schedule(site.loop.state, site.clock.now())
    assert plan is not None
    turns = site.loop.scheduler.discipline.turns(
        site.loop.scheduler.view(site.loop.state, site.clock.now())
    )
    levels = {turn.sample.id: turn.level for turn in turns}
    assert levels[calm.id] >= levels[wild.id]


def test_what_cannot_be_on_time_even_at_its_floor_is_refused_at_once() -> None:
    site = Site()
    with pytest.raises(Overloaded, match=r"deadline is 0\.05 s") as refused:
        site.submit(deadline=0.05)
    assert refused.value.finish > 0.05
    assert refused.value.retry is not None
    assert not site.loop.state.samples


def test_nobody_is_let_in_who_would_break_a_promise() -> None:
    site = Site()
    kept, refused = [], []
    for _ in range(40):
        try:
            kept.append(site.submit(deadline=4 * DENSE))
        except Overloaded as error:
            refused.append(error.retry)
    assert len(refused) > 5
    assert min(refused) > 0.0
    assert len(kept) > 5
    site.run()
    assert all(site.report(name).deadline_met for name in kept)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 1.0), st.floats(0.3, 6.0), st.sampled_from([16, 64, 256])),
        min_size=1,
        max_size=25,
    ),
    st.booleans(),
)
def test_what_is_let_in_is_on_time(arrivals, levels: bool) -> None:
    """Whoever comes later: a promise is kept by lowering levels. Surprises are drawn, and may cost
    more than was foreseen; the reserve is for them.
    """
    site = Site()
    kept = []
    for gap, scale, rows in arrivals:
        site.run(gap)
        dense = STEPS * rows * 1e-3 + 0.02
        try:
            kept.append(site.submit(levels=levels, rows=rows, deadline=scale * dense))
        except Overloaded:
            continue
    site.run()
    late = [name for name in kept if not site.report(name).deadline_met]
    assert len(late) <= len(kept) // 10


def test_without_a_deadline_all_come_in_order_and_none_starves() -> None:
    site = Site()
    names = [site.submit() for _ in range(4)]
    site.run()
    assert sorted(names, key=lambda n: site.finished[n]) == names


def test_hurry_goes_first_and_patience_ends() -> None:
    """One without a deadline waits for those with one, but not for ever."""
    site = Site(patience=3.0)
    slow = site.submit("slow", levels=False)
    for i in range(30):
        with contextlib.suppress(Overloaded):
            site.submit(f"fast{i}", deadline=1.2 * DENSE)
        site.run(0.5 * DENSE)
    site.run()
    assert site.finished["fast0"] < site.finished[slow]
    assert site.finished[slow] < site.finished["fast29"] or site.finished[slow] < 3 * 3.0


def test_priority_goes_before_deadlines() -> None:
    site = Site()
    site.submit("plain", deadline=5 * DENSE, levels=False)
    site.submit("first", deadline=20 * DENSE, levels=False, priority=1)
    site.run()
    assert site.finished["first"] < site.finished["plain"]


def test_a_flood_of_one_tenant_queues_behind_itself() -> None:
    site = Site(patience=5.0)
    for i in range(60):
        site.submit(f"flood{i}", levels=False, tenant="loud")
    site.run(2 * DENSE)
    quiet = site.submit("quiet", levels=False, tenant="quiet")
    site.run()
    before = sum(site.finished[f"flood{i}"] < site.finished[quiet] for i in range(60))
    assert before < 20


def test_under_pressure_tenants_have_their_shares() -> None:
    """Two tenants that ask for more than there is, one three times as much as the other."""
    site = Site(shares={"a": 1.0, "b": 1.0})
    admitted = {"a": 0, "b": 0}
    for _ in range(150):
        for tenant, times in (("a", 3), ("b", 1)):
            for _ in range(times):
                try:
                    site.submit(tenant=tenant, deadline=3 * DENSE)
                    admitted[tenant] += 1
                except Overloaded:
                    pass
        site.run(0.35 * DENSE)
    assert admitted["b"] > 0.6 * admitted["a"]


def test_what_is_hopeless_holds_up_nobody() -> None:
    site = Site("goodput")
    late = site.submit(deadline=2 * DENSE, levels=False)
    site.clock.advance(1.9 * DENSE)
    fine = site.submit(deadline=1.3 * DENSE, levels=False)
    site.run()
    assert site.report(fine).deadline_met
    assert not site.report(late).deadline_met


def test_planning_is_pure() -> None:
    site = Site()
    for i in range(6):
        site.submit(deadline=(2 + i) * DENSE)
    site.run(DENSE)
    before = copy.deepcopy(site.loop.state)
    plans = [site.loop.scheduler.schedule(site.loop.state, site.clock.now()) for _ in range(2)]
    assert plans[0] == plans[1]
    assert site.loop.state == before


def test_packs_end_where_they_stop_paying() -> None:
    """Without a fixed cost a pack is one sample; with a large one it is all of them."""
    sizes = []
    for step in (0.0, 1.0):
        site = Site(cost=linear_cost(step=step))
        for _ in range(6):
            site.submit(levels=False)
        site.run()
        packs = [len(p.items) for p in site.plans if isinstance(p.items[0], DenoiseItem)]
        sizes.append(max(packs))
    assert sizes == [1, 6]


def test_static_batches_take_nobody_in_half_way() -> None:
    site = Site("static", cost=linear_cost(step=1.0))
    first = [site.submit(levels=False) for _ in range(2)]
    site.loop.step()
    site.loop.step()
    later = site.submit(levels=False)
    site.run()
    assert max(site.finished[n] for n in first) < site.finished[later]
    together = [
        {i.sample for i in p.items} for p in site.plans if isinstance(p.items[0], DenoiseItem)
    ]
    assert {f"{first[0]}/0", f"{first[1]}/0"} in together
    assert not any(f"{later}/0" in group and f"{first[0]}/0" in group for group in together)


def test_estimates_tell_what_a_floor_would_do() -> None:
    site = Site()
    for _ in range(4):
        site.submit(deadline=6 * DENSE)
    times = tuple(i / STEPS for i in range(STEPS))
    trip = Trip(tuple(1 - t for t in times), (0.0,) * STEPS, times, True, True)
    request = Request(
        id="asks",
        prompt="a fox",
        size=(32, 32),
        path=Path(steps=STEPS),
        seed=0,
        guidance=3.0,
        levels=(Level("p", 100), Level("q", 60)),
        deadline=1.4 * DENSE,
    )
    dense, floor = site.loop.estimates(
        request, policies=[Adaptive(tolerance=0.0), Adaptive(tolerance=0.2)], trip=trip, rows=ROWS
    )
    assert (dense.quality, floor.quality) == (100, 60)
    assert dense.work > 2 * floor.work
    assert dense.finish > floor.finish
    assert floor.refusal is None or dense.refusal is not None
    assert "asks/0" not in site.loop.state.samples


def test_standing_tells_how_it_goes() -> None:
    site = Site()
    empty = site.loop.standing()
    assert (empty.waiting, empty.running, empty.attainment, empty.quality) == (0, 0, None, None)
    site.submit(deadline=10.0)
    site.submit(deadline=10.0)
    with pytest.raises(Overloaded):
        site.submit(deadline=0.01)
    busy = site.loop.standing()
    assert (busy.waiting, busy.running, busy.refused) == (2, 0, 1)
    assert busy.backlog > busy.backlog_floor > 0.0
    site.run()
    done = site.loop.standing()
    assert done.attainment == pytest.approx(2 / 3)
    assert done.goodput == pytest.approx(2 / site.clock.now(), rel=0.01)


def test_a_discipline_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^scheduler: got 'best'; allowed: goodput, fifo"):
        Scheduler.Config(discipline="best")
