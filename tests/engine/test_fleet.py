"""Many workers behind one front: placement, what is lost with a worker, and what is not."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.fleets import Told, expected, fleet_of, kill, submit
from tests.server.priced import priced

from musiva.core.errors import (
    Cancelled,
    ExecutionFailed,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from musiva.core.types import Action, Kind, StepPlan, StepResult
from musiva.engine import Engine, Fleet, InlineExecutor, Scheduler, Workers, load_pipeline
from musiva.engine.fleet import Threads
from musiva.engine.fleet.launcher import Hold
from musiva.engine.fleet.placement import Load, misplaced, placed
from musiva.engine.fleet.worker import Order
from musiva.engine.identity import Identity
from musiva.engine.pipeline import Pipeline
from musiva.policy import POLICIES, load_policy_class

ASKED = (
    {"prompt": "a red fox", "size": (64, 48), "steps": 7, "seed": 3, "guidance": 4.0},
    {"prompt": "a blue whale", "size": (32, 32), "steps": 9, "seed": 4, "num_images": 3},
    {"prompt": "two apples", "steps": 12, "seed": 5, "policy": "interval:interval=3,warmup=2"},
    {"prompt": "a bicycle", "steps": 10, "seed": 6, "policy": "ras:warmup=2,interval=4,share=0.4"},
    {"prompt": "a kite", "steps": 10, "seed": 7, "policy": "first_block:threshold=0.5"},
)


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def pictures(pipeline: Pipeline) -> list[list[np.ndarray]]:
    return [expected(pipeline, asked) for asked in ASKED]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def check(told: Told, pictures: list[np.ndarray]) -> None:
    told.wait().check_order()
    assert told.error is None, told.error
    assert len(told.pictures) == len(pictures)
    for index, picture in enumerate(pictures):
        assert np.array_equal(told.pictures[index], picture), index


def test_a_request_goes_where_least_is_to_do() -> None:
    loads = {0: Load(3.0, 2), 1: Load(1.0, 1), 2: Load(1.0, 3)}
    assert placed(loads, ()) == 1
    assert placed(loads, {1}) == 2
    assert placed(loads, loads) is None
    assert placed({}, ()) is None


def test_only_what_waits_for_others_moves_and_only_to_who_has_nothing() -> None:
    busy, idle = Load(9.0, 3, 2), Load()
    assert misplaced({0: busy, 1: idle, 2: idle}) == (0, 1)
    assert misplaced({0: Load(5.0, 2, 1), 1: busy, 2: idle}) == (1, 2)
    assert misplaced({0: busy, 1: Load(1.0, 1)}) is None
    assert misplaced({0: Load(9.0, 3, 0), 1: idle}) is None
    assert misplaced({0: Load(9.0, 1, 1), 1: idle}) is None


def test_pictures_are_those_of_one_engine(pipeline: Pipeline, pictures) -> None:
    with fleet_of(pipeline) as fleet:
        told = [submit(fleet, Told(), **asked) for asked in ASKED]
        for one, expected_ in zip(told, pictures, strict=True):
            check(one, expected_)
        assert fleet.generate("a red fox", size=(64, 48), steps=7, seed=3, guidance=4.0)
        assert (fleet.num_waiting, fleet.num_running) == (0, 0)
        assert fleet.standing().goodput > 0
        assert all(one.steps == 0 or one.phase == "ready" for one in fleet.members())


def test_every_worker_gets_its_share(pipeline: Pipeline) -> None:
    with fleet_of(pipeline, 3) as fleet:
        for i in range(6):
            submit(fleet, Told(), prompt="a fox", steps=900, request_id=f"r{i}")
        assert [one.requests for one in fleet.members()] == [2, 2, 2]
        for i in (1, 2, 4, 5):
            fleet.cancel(f"r{i}")
        until(lambda: fleet.num_waiting == 2)


def test_latents_and_previews_come_through(pipeline: Pipeline) -> None:
    shape = pipeline.latent_shape((48, 32))
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    asked = {"prompt": "a fox", "size": (48, 32), "steps": 6, "seed": 1}
    with Engine(pipeline) as engine:
        (alone,) = engine.generate("a fox", size=(48, 32), steps=6, seed=1, latents=[latent])
    with fleet_of(pipeline) as fleet:
        told = submit(fleet, Told(), [latent], **asked, previews=3).wait()
        assert np.array_equal(told.pictures[0], np.asarray(alone))
        shown = [event for event in told.events if event.kind == "preview"]
        assert len(shown) == 3
        with pytest.raises(InvalidInput, match="latents"):
            submit(fleet, Told(), [latent[:1]], **asked)


@pytest.mark.parametrize("at", [1, 4])
def test_what_a_lost_worker_had_goes_on_elsewhere(pipeline: Pipeline, pictures, at: int) -> None:
    with fleet_of(pipeline) as fleet:
        lost = threading.Event()

        def lose(event) -> None:
            if event.kind == "progress" and event.evaluation >= at and not lost.is_set():
                lost.set()
                kill(fleet, event.request)

        told = [submit(fleet, Told(lose), **asked, previews=2) for asked in ASKED]
        for one, expected_ in zip(told, pictures, strict=True):
            check(one, expected_)
            previewed = [(e.index, e.evaluation) for e in one.events if e.kind == "preview"]
            assert len(set(previewed)) == len(previewed) == 2 * len(expected_)
        assert lost.is_set()
        until(lambda: all(one.phase == "ready" for one in fleet.members()))
        assert sorted(one.life for one in fleet.members()) == [1, 2]


def test_nothing_is_lost_however_often_workers_are(pipeline: Pipeline, pictures) -> None:
    draw = random.Random(5)
    chosen = [draw.randrange(len(ASKED)) for _ in range(9)]
    with fleet_of(pipeline, 3, losses=1000, attempts=1000) as fleet:
        told = [submit(fleet, Told(), **ASKED[i]) for i in chosen]
        for _ in range(12):
            time.sleep(draw.uniform(0.0, 0.15))
            members = fleet._roster.ready
            if members:
                draw.choice(members).hold.kill()
        for one, i in zip(told, chosen, strict=True):
            check(one, pictures[i])
        assert fleet.num_waiting == 0


def test_a_request_that_ends_its_workers_fails(pipeline: Pipeline) -> None:
    class Poison:
        """Ends its worker whenever it comes to evaluation 3."""

        keep, probes = 1, ()

        def begin(self, trip: object) -> int:
            return 0

        def left(self, trip: object, memory: int) -> float:
            return 1.0

        def observe(self, trip: object, memory: int, *rest: object) -> int:
            return memory + 1

        def act(self, trip: object, memory: int, evaluation: int) -> Action:
            if evaluation == 3:
                kill(fleet, "poison")
            return Action()

    config = Engine.Config(policies={**POLICIES, "poison": Poison})
    with fleet_of(pipeline, config=config, losses=2) as fleet:
        asked = {"prompt": "a fox", "policy": "poison", "request_id": "poison"}
        poison = submit(fleet, Told(), **asked, steps=20, seed=1).wait()
        assert isinstance(poison.error, ExecutionFailed)
        assert "2 workers ended while they had it" in str(poison.error)
        assert max(event.evaluation for event in poison.events) == 2
        until(lambda: len(fleet._roster.ready) == 2)
        assert fleet.generate("a fox", steps=2)


def test_cancelled_at_any_time(pipeline: Pipeline) -> None:
    with fleet_of(pipeline) as fleet:
        told = Told(lambda event: event.kind == "progress" and fleet.cancel(event.request))
        submit(fleet, told, prompt="a fox", steps=50, seed=1).wait()
        assert isinstance(told.error, Cancelled)
        at_once = submit(fleet, Told(), prompt="a fox", steps=50, request_id="now")
        fleet.cancel("now")
        assert isinstance(at_once.wait().error, Cancelled)
        fleet.cancel("nobody")
        assert fleet.num_waiting == 0


def test_closing_ends_all(pipeline: Pipeline) -> None:
    with fleet_of(pipeline) as fleet:
        told = [submit(fleet, Told(), prompt="a fox", steps=200) for _ in range(3)]
    assert all(isinstance(one.wait(1.0).error, Cancelled) for one in told)
    with pytest.raises(Unavailable, match="closed"):
        submit(fleet, Told(), prompt="a fox")
    with pytest.raises(Unavailable, match="closed"):
        fleet.standing()


def test_a_drained_worker_hands_over_and_another_takes_its_place(
    pipeline: Pipeline, pictures
) -> None:
    with fleet_of(pipeline) as fleet:
        begun = threading.Event()
        told = [
            submit(fleet, Told(lambda e: e.kind == "progress" and begun.set()), **asked)
            for asked in ASKED
        ]
        assert begun.wait(20)
        fleet.drain(0)
        with pytest.raises(Unavailable, match="worker 0 is not ready"):
            fleet.drain(0)
        with pytest.raises(Unavailable, match="worker 1 is the only one"):
            fleet.drain(1)
        for one, expected_ in zip(told, pictures, strict=True):
            check(one, expected_)
        until(lambda: [one.life for one in fleet.members()] == [2, 1])
        until(lambda: len(fleet._roster.ready) == 2)
        for number in (-1, 2):
            with pytest.raises(InvalidInput, match="0 to 1"):
                fleet.drain(number)


def test_who_refuses_is_not_the_last_word(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker cannot keep the deadline, the second one can; then nobody can."""
    execute = InlineExecutor.execute

    def slowly(self: InlineExecutor, plan: StepPlan) -> StepResult:
        time.sleep(0.1 * (plan.kind is Kind.DENOISE))
        return execute(self, plan)

    monkeypatch.setattr(InlineExecutor, "execute", slowly)
    asked = {"prompt": "a fox", "size": (32, 32), "steps": 20, "guidance": 1.0}
    with fleet_of(pipeline, config=priced(0.1)) as fleet:
        told = [submit(fleet, Told(), **asked, deadline=3.0, seed=i) for i in range(3)]
        until(lambda: all(one.events for one in told))
        kinds = [one.events[0].kind for one in told]
        assert kinds == ["admitted", "admitted", "failed"]
        assert isinstance(told[2].error, Overloaded)
        assert told[2].error.reason == "deadline"
        assert told[2].error.finish is not None
        assert fleet.standing().refused == 1


def test_no_more_than_may_wait(pipeline: Pipeline) -> None:
    with fleet_of(pipeline, config=Engine.Config(max_waiting=2)) as fleet:
        for i in range(2):
            submit(fleet, Told(), prompt="a fox", steps=200, request_id=f"r{i}")
        with pytest.raises(Overloaded, match="2 requests wait; at most 2 may"):
            submit(fleet, Told(), prompt="a fox")
        fleet.cancel("r1")
        until(lambda: fleet.num_waiting == 1)
        with pytest.raises(InvalidInput, match="no waiting request has"):
            submit(fleet, Told(), prompt="a fox", request_id="r0")


def test_estimates_are_of_who_is_done_first(pipeline: Pipeline) -> None:
    with fleet_of(pipeline, config=priced(0.01)) as fleet:
        request = fleet.request("a fox", size=(32, 32), steps=100, guidance=1.0)
        assert fleet.estimates(request)[0].finish == pytest.approx(1.0, rel=0.2)
        submit(fleet, Told(), prompt="a fox", size=(32, 32), steps=900, guidance=1.0)
        assert fleet.estimates(request)[0].finish == pytest.approx(1.0, rel=0.2)


def test_policies_of_users_files_reach_the_workers(pipeline: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from musiva.core.types import Action\n"
        "class Mine:\n"
        "    keep, probes = 1, ()\n"
        "    def begin(self, trip): return 0\n"
        "    def observe(self, trip, memory, evaluation, action, measured): return memory + 1\n"
        "    def act(self, trip, memory, evaluation):\n"
        "        return Action(compute=evaluation % 2 == 0, order=0)\n"
    )
    name, made = load_policy_class(f"{file}:Mine")
    config = Engine.Config(policies={**POLICIES, name: made})
    with fleet_of(pipeline, config=config) as fleet:
        told = submit(fleet, Told(), prompt="a fox", steps=6, policy="mine").wait()
        assert told.events[-2].computed == 3


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("workers", {"count": 0}),
        ("losses", {"count": 1, "losses": 0}),
        ("silence", {"count": 1, "silence": 0}),
        ("degree", {"count": 1, "degree": 2, "form": "branches+ulysses"}),
    ],
)
def test_workers_that_cannot_be(field: str, values: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=field):
        Workers(**values)  # type: ignore[arg-type]


def test_a_worker_that_cannot_be_started_is_an_error(pipeline: Pipeline) -> None:
    def launcher(number: int, order: object) -> object:
        raise OSError("no more processes")

    with pytest.raises(Unavailable, match="worker 0 cannot be started: no more processes"):
        Fleet(pipeline, Workers(count=1), model="tiny", launcher=launcher)  # type: ignore[arg-type]


def test_a_worker_of_other_weights_is_refused_and_both_are_named(
    pipeline: Pipeline, tiny_model: Path
) -> None:
    other = load_pipeline(tiny_model, device="cpu")
    with torch.no_grad():
        next(iter(other.denoiser.parameters()))[:1].mul_(1.001)
    ours, theirs = Identity.of(pipeline), Identity.of(other)
    assert ours.differs(ours) == ""
    told = f"the server has weights {ours.weights}, not {theirs.weights}"
    with pytest.raises(Unavailable, match=told):
        Fleet(pipeline, Workers(count=1), model="tiny", launcher=Threads(other))


@pytest.mark.parametrize(
    ("degree", "form"), [(2, "ulysses"), (3, "ulysses"), (4, "branches+ulysses")]
)
def test_ranks_of_a_worker_share_its_pictures(
    pipeline: Pipeline, pictures, degree: int, form: str
) -> None:
    """The same every time, and nearly those of one rank."""
    found = []
    for _ in range(2):
        with fleet_of(pipeline, 1, degree=degree, form=form) as fleet:
            told = [submit(fleet, Told(), **asked) for asked in ASKED]
            found.append([one.wait().pictures for one in told])
            assert not any(one.error for one in told)
    for one, other, expected_ in zip(*found, pictures, strict=True):
        for index, picture in enumerate(expected_):
            assert np.array_equal(one[index], other[index])
            assert np.abs(one[index].astype(int) - picture).max() <= 2


def test_what_ranks_send_each_other_is_told(pipeline: Pipeline) -> None:
    with fleet_of(pipeline, 1, degree=3, silence=4.0) as fleet:
        submit(fleet, Told(), **ASKED[0]).wait()
        until(lambda: any(link.transfers for link in fleet.members()[0].links[1:]))
        server, ranks = fleet.members()[0].links
        assert (server.kind, ranks.kind, ranks.other) == ("server", "ranks", "1-2")
        assert server.transfers > 0
        assert 0 < ranks.received_bytes < 2 * ranks.sent_bytes
        assert ranks.seconds > 0.0


@pytest.mark.parametrize(("degree", "form"), [(2, "ulysses"), (4, "branches+ulysses")])
def test_a_worker_that_loses_a_rank_is_lost(
    pipeline: Pipeline, pictures, degree: int, form: str
) -> None:
    with fleet_of(pipeline, 2, degree=degree, form=form, attempts=100) as fleet:
        lost = threading.Event()

        def lose(event) -> None:
            if event.kind == "progress" and event.evaluation >= 3 and not lost.is_set():
                lost.set()
                fleet._tickets[event.request].member.hold._groups[-1].leave()

        told = [submit(fleet, Told(lose), **asked) for asked in ASKED]
        for one, expected_ in zip(told, pictures, strict=True):
            one.wait().check_order()
            assert one.error is None
            for index, picture in enumerate(expected_):
                assert np.abs(one.pictures[index].astype(int) - picture).max() <= 2
        until(lambda: sum(one.life for one in fleet.members()) == 3)


def test_a_place_that_had_nobody_for_long_has_one_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a disk with the weights is away for a while."""
    monkeypatch.setattr("musiva.engine.fleet.roster.PAUSE", 0.02)
    monkeypatch.setattr("musiva.engine.fleet.roster.LONGEST_PAUSE", 0.1)
    threads, away = Threads(pipeline), threading.Event()

    def launcher(number: int, order: Order) -> Hold:
        if away.is_set():
            raise OSError("its weights are not there")
        return threads(number, order)

    launcher.home = threads.home  # type: ignore[attr-defined]
    workers = Workers(count=1, attempts=2)
    with Fleet(pipeline, workers, model="tiny", launcher=launcher) as fleet:  # type: ignore[arg-type]

        def is_lost() -> bool:
            try:
                fleet.check()
            except Unavailable as error:
                return "no worker is left" in str(error)
            return False

        away.set()
        fleet._roster.members[0].hold.kill()
        until(is_lost)
        with pytest.raises(Unavailable, match="one is tried every"):
            submit(fleet, Told(), **ASKED[0])
        away.clear()
        until(lambda: bool(fleet._roster.ready))
        fleet.check()
        check(submit(fleet, Told(), **ASKED[0]), expected(pipeline, ASKED[0]))


def test_what_waits_near_its_pages_stays_there(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would only come back, again and again, and lose its turn."""
    config = Engine.Config(scheduler=Scheduler.Config(max_rows=16))
    with fleet_of(pipeline, config=config) as fleet:
        monkeypatch.setattr(fleet, "_saved", lambda request: {0: 1e6})
        moved, real = [], fleet._move
        monkeypatch.setattr(fleet, "_move", lambda ticket: (moved.append(ticket), real(ticket)))
        told = [submit(fleet, Told(), **{**ASKED[0], "steps": 30}) for _ in range(6)]
        until(lambda: fleet.members()[0].waiting > 0)
        assert fleet.members()[1].requests == 0
        for one in told:
            assert one.wait().error is None
        assert not moved
        # Of those that wait with them, one that has no pages there goes to who has nothing.
        told = [submit(fleet, Told(), **{**ASKED[0], "steps": 60}) for _ in range(5)]
        far = list(fleet._tickets.values())[-2]
        far.saved = {}
        assert all(one.wait().error is None for one in told)
        assert moved == [far]
