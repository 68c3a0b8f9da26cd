"""Policies of users that do what they must not: their request fails with a clear error, the others
of its packs have the same bytes as ever, and nothing leaks.
"""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from musiva.cli import main
from musiva.core.errors import ExecutionFailed, InvalidInput
from musiva.core.types import COMPUTE, Action, Gate
from musiva.engine import Engine
from musiva.policy import POLICIES, Never, Trip, load_policy_class
from musiva.server import create_app
from musiva.telemetry import Metrics
from tests.contract.driving import pipeline_of
from tests.stepping import Bench

SIZE = (9, 7)
# Of 2 x 3 tokens each.
TILES = (True, False, True, False) * 3
GOOD = ("never", "ras:warmup=1,share=0.3", "first_block:threshold=1", "interval:interval=2")
LATE = 3


class Bad(Never):
    """May do everything but what it does."""

    keep = 2
    tile = (2, 3)
    probes = ("scale",)


class Gated(Never):
    keep = 2
    probes = ("first_block", "modulated_input")


def doing(wanted: object, at: int = LATE, base: type = Bad) -> type:
    """A policy that wants something at one evaluation, and computes at all others."""

    def act(self: object, trip: Trip, memory: object, evaluation: int) -> object:
        return wanted if evaluation == at else COMPUTE

    return type("Mine", (base,), {"act": act})


def submit(bench: Bench, name: str, policy: str) -> None:
    bench.submit(name, prompt="a fox", size=SIZE, steps=6, guidance=3.0, policy=policy)


def among_good_ones(made: type) -> Bench:
    bench = Bench(pipeline_of("cross"), mine=made)
    for i, policy in enumerate(GOOD[:2]):
        submit(bench, f"good{i}", policy)
    try:
        submit(bench, "bad", "mine")
    finally:
        for i, policy in enumerate(GOOD[2:], 2):
            submit(bench, f"good{i}", policy)
        bench.run()
        assert_unharmed(bench)
    return bench


@cache
def good() -> dict[str, np.ndarray]:
    bench = Bench(pipeline_of("cross"))
    for i, policy in enumerate(GOOD):
        submit(bench, f"good{i}", policy)
    return bench.run()


def assert_unharmed(bench: Bench) -> None:
    """All good requests have their pictures, and nothing is left of any."""
    for name, picture in good().items():
        assert np.array_equal(bench.pictures[name], picture), name
    assert (bench.executor.num_slots, bench.executor.store.owners) == (0, ())
    assert bench.loop.state.requests == []


def raising(method: str, error: BaseException, at: int = LATE) -> type:
    def fail(
        self: object, trip: Trip, memory: object = None, evaluation: int = LATE, *told
    ) -> Action:
        if evaluation == at:
            raise error
        return COMPUTE

    return type("Mine", (Bad,), {method: fail})


@pytest.mark.parametrize("error", [KeyError("no such"), MemoryError(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("method", ["observe", "act"])
def test_what_it_raises_ends_its_own_request(method: str, error: BaseException) -> None:
    failed = among_good_ones(raising(method, error)).failed()
    assert list(failed) == ["bad"]
    assert isinstance(failed["bad"], ExecutionFailed)
    # What it observes of one evaluation comes before it acts at the next.
    at = LATE + (method == "observe")
    assert str(failed["bad"]).startswith(f"policy Mine failed at evaluation {at}: {error}")


@pytest.mark.parametrize("error", [ValueError("not today"), SystemExit(3)], ids=repr)
def test_what_it_raises_before_it_begins_ends_its_own_request(error: BaseException) -> None:
    with pytest.raises(ExecutionFailed, match="policy Mine failed at evaluation 0"):
        among_good_ones(raising("begin", error))


GATE = "first_block"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (None, "action: got None; allowed: an Action"),
        (np.zeros(2), "action: got array([0., 0.]); allowed: an Action"),
        (Action(compute="no"), "compute: got 'no'; allowed: True or False"),
        (Action(compute=[]), "compute: got []; allowed: True or False"),
        (Action(calibrated=[1]), "calibrated: got [1]; allowed: True or False"),
        (Action(borrow=1), "borrow: got 1; allowed: True or False"),
        (Action(compute=False, borrow=True), "borrow: got True; allowed: False where nothing"),
        (Action(coarse=True), "coarse: got True; allowed: False except at evaluation 0"),
        (Action(compute=False, order=1.0), "order: got 1.0; allowed: a whole number from 0"),
        (Action(order="x"), "order: got 'x'; allowed: a whole number from 0"),
        (Action(order=-7), "order: got -7; allowed: a whole number from 0"),
        (Action(compute=False, order=True), "order: got True; allowed: a whole number from 0"),
        (Action(compute=False, order=2), "order: got 2; allowed: below 2, the number of values"),
        (Action(compute=False, order=10**9), "order: got 1000000000; allowed: below 2"),
        (Action(tiles=TILES, order=2), "order: got 2; allowed: below 2"),
        (Action(tiles=TILES[1:]), "allowed: one for each of 4 x 3 tiles"),
        (Action(tiles=TILES * 1000), "allowed: one for each of 4 x 3 tiles"),
        (Action(tiles=(False,) * 12), "of which at least one is computed"),
        (Action(tiles=list(TILES)), "allowed: a tuple of bools"),
        (Action(tiles="all"), "tiles: got 'all'; allowed: a tuple of bools"),
        (Action(tiles=TILES, gate=Gate(GATE, 1.0)), "allowed: None where the model does not run"),
        (Action(gate=Gate(GATE, 1.0)), f"gate: got '{GATE}'; allowed: one of the policy's probes"),
        (Action(gate=GATE), f"gate: got '{GATE}'; allowed: a Gate, or None"),
        (Action(held="all"), "held: got 'all'; allowed: what the policy's probes keep: none"),
    ],
    ids=repr,
)
def test_what_no_executor_could_do_is_refused(wanted: object, told: str) -> None:
    failed = among_good_ones(doing(wanted)).failed()
    assert list(failed) == ["bad"]
    assert isinstance(failed["bad"], ExecutionFailed)
    assert f"policy Mine failed at evaluation {LATE}: " in str(failed["bad"])
    assert told in str(failed["bad"])


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (Gate(GATE, "x"), "threshold: got 'x'; allowed: a number"),
        (Gate(GATE, float("nan")), "threshold: got nan; allowed: a number"),
        (Gate(GATE, None), "threshold: got None; allowed: a number"),
        (Gate(GATE, 1.0, ("a",)), "rescale: got ('a',); allowed: a tuple of finite numbers"),
        (Gate(GATE, 1.0, 3), "rescale: got 3; allowed: a tuple of finite numbers"),
        (Gate(GATE, 1.0, (10**400,)), "allowed: a tuple of finite numbers"),
        (Gate(GATE, 1.0, (float("inf"),)), "rescale: got (inf,); allowed: a tuple of finite"),
        (Gate("scale", 1.0), "gate: got 'scale'; allowed: one of the policy's probes"),
    ],
    ids=repr,
)
def test_gates_that_cannot_decide_are_refused(gate: Gate, told: str) -> None:
    failed = among_good_ones(doing(Action(gate=gate), base=Gated)).failed()
    assert list(failed) == ["bad"]
    assert told in str(failed["bad"])


@pytest.mark.parametrize("probe", Gated.probes)
def test_gates_look_at_whole_samples(probe: str) -> None:
    """Tiles, and a coarse branch, have fewer rows than what a gate compares them with."""
    both = {"tile": (2, 3), "probes": (probe,)}
    tiled = type("Both", (doing(Action(tiles=TILES), base=Gated),), both)
    failed = among_good_ones(tiled).failed()
    assert "allowed: None where the probes of a policy are those of gates" in str(failed["bad"])
    # All tiles are what a gate can look at.
    whole = type("Both", (doing(Action(tiles=(True,) * 12), base=Gated),), both)
    assert not among_good_ones(whole).failed()
    with pytest.raises(ExecutionFailed, match=r"coarse: got True; .* without gates"):
        among_good_ones(doing(Action(coarse=True), at=0, base=Gated))


def test_a_gate_may_decide_about_one_branch() -> None:
    wanted = Action(gate=Gate(GATE, 1e9), borrow=True)
    bench = among_good_ones(doing(wanted, base=Gated))
    assert bench.held("bad/0") == [None] * LATE + ["rest"] + [None] * (5 - LATE)
    assert bench.journal.actions["bad/0"][LATE].borrow


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"keep": "x"}, "keep a whole number from 0 to 1000"),
        ({"keep": -3}, "keep a whole number from 0 to 1000"),
        ({"keep": 2.5}, "keep a whole number from 0 to 1000"),
        ({"keep": 10**9}, "keep a whole number from 0 to 1000"),
        ({"probes": None}, "probes out of forecast_error, "),
        ({"probes": "scale"}, "probes out of forecast_error, "),
        ({"probes": 3}, "probes out of forecast_error, "),
        ({"probes": ("scale", ["x"])}, "probes out of forecast_error, "),
        ({"tile": (0, 2)}, r"tile \(height, width\), from 1 token each"),
        ({"keep": property(lambda self: 1 // 0)}, "one that can be made .*ZeroDivisionError"),
        ({"__init__": lambda self, a: None}, "one that can be made .*missing 1 required"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_it_says_of_itself_is_checked_at_once(attributes: dict, told: str) -> None:
    made = type("Mine", (Bad,), attributes)
    with pytest.raises(InvalidInput, match=f"policy: got 'mine'; allowed: {told}"):
        among_good_ones(made)


@pytest.mark.parametrize("name", ["keep", "probes", "tile"])
def test_what_it_says_of_itself_later_ends_at_most_its_own_request(name: str) -> None:
    """In an engine, whose thread would end with all requests. It may change its mind any time."""
    asked, changes, good_ones = [], [0], 0

    def says(self: object) -> object:
        asked.append(name)
        return getattr(Bad, name) if len(asked) < changes[-1] else "x"

    wanted = doing(Action(tiles=TILES, order=1))
    made = type("Mine", (wanted,), {name: property(says)})
    config = Engine.Config(policies={**POLICIES, "mine": made})
    options = {"size": SIZE, "steps": 5, "guidance": 3.0, "seed": 2}
    with Engine(pipeline_of("cross"), config) as engine:
        (expected,) = engine.generate("a fox", **options)
        for start in range(1, 16):
            asked.clear()
            changes.append(start)
            try:
                engine.generate("a fox", policy="mine", **options)
                good_ones += 1
            except (InvalidInput, ExecutionFailed) as error:
                told = str(error)
                assert name in told, told
        engine.check()
        assert engine.generate("a fox", **options) == [expected]
    assert 0 < good_ones < 15


class Remembered:
    """What a policy may remember: as much as it likes."""

    def __init__(self) -> None:
        self.much = bytearray(1 << 24)


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_what_it_remembers_goes_with_its_request(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    alive: list[weakref.ref] = []

    class Hoards(Never):
        keep = 1
        probes = ("scale",)

        def begin(self, trip: Trip) -> Remembered:
            return self.observe(trip, None, 0, COMPUTE, {})

        def observe(self, trip: Trip, memory, evaluation, action, measured) -> Remembered:
            new = Remembered()
            alive.append(weakref.ref(new))
            return new

        def act(self, trip: Trip, memory: Remembered, evaluation: int) -> Action:
            if end == "failed" and evaluation == LATE:
                raise RuntimeError("enough")
            return COMPUTE

    # A logged traceback keeps what was on its stack.
    caplog.set_level(logging.CRITICAL)
    bench = Bench(pipeline_of("cross"), mine=Hoards)
    submit(bench, "r", "mine")
    bench.run(1 + 2)
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 1
    if end == "cancelled":
        bench.loop.cancel("r")
    bench.run()
    gc.collect()
    assert len(alive) > 2
    assert not [ref for ref in alive if ref() is not None]


def test_an_id_is_taken_until_its_request_ends() -> None:
    bench = Bench(pipeline_of("cross"))
    submit(bench, "r", "never")
    with pytest.raises(ValueError, match="sample r/0 is already there"):
        submit(bench, "r", "never")
    assert list(bench.run()) == ["r/0"]
    with Engine(pipeline_of("cross")) as engine:
        request = engine.request("a fox", size=SIZE, steps=50, request_id="r")
        engine.submit(request, lambda event: None)
        with pytest.raises(InvalidInput, match="id: got 'r'; allowed: an id that no waiting"):
            engine.submit(request, lambda event: None)


def failed_before(bench: Bench) -> None:
    submit(bench, "r", "late")
    while not bench.failed():
        bench.step()


def cancelled_before(bench: Bench) -> None:
    submit(bench, "r", "ras:warmup=1,share=0.3")
    bench.run(1 + LATE)
    bench.loop.cancel("r")


@pytest.mark.parametrize("before", [failed_before, cancelled_before])
@pytest.mark.parametrize("given", [True, False])
def test_an_id_may_be_used_again(before: Callable[[Bench], None], given: bool) -> None:
    """Before a plan has freed what the first one had; also with a latent of one's own."""
    pipeline = pipeline_of("cross")
    noise = torch.Generator().manual_seed(1)
    latent_CHW = torch.randn(pipeline.latent_shape(SIZE), generator=noise)

    def submit_again(bench: Bench) -> None:
        request = bench.front.request(
            "a fox", size=SIZE, steps=6, guidance=3.0, seed=2, policy=GOOD[1], request_id="r"
        )
        bench.loop.submit(
            request,
            policies=bench.front.policies_of(request),
            trip=bench.front.trip_of(request),
            rows=bench.front.rows_of(request),
            latents=[latent_CHW] if given else None,
        )

    first = Bench(pipeline)
    submit_again(first)
    bench = Bench(pipeline, late=raising("act", RuntimeError("late")))
    for i, policy in enumerate(GOOD):
        submit(bench, f"good{i}", policy)
    before(bench)
    submit_again(bench)
    bench.run()
    assert_unharmed(bench)
    assert np.array_equal(bench.pictures["r/0"], first.run()["r/0"])


def test_a_file_that_exits_is_no_policy(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys\nsys.exit(4)\n")
    with pytest.raises(InvalidInput, match=r"a file that Python can run .*SystemExit"):
        load_policy_class(f"{tmp_path / 'script.py'}:Mine")


@pytest.mark.parametrize("quality", [0, 101, "x", True, 99.5], ids=repr)
def test_a_quality_is_checked_at_every_door(
    tiny_engine: Engine, capsys: pytest.CaptureFixture[str], quality: object
) -> None:
    with pytest.raises(InvalidInput) as raised:
        tiny_engine.request("a fox", quality=quality)
    assert str(raised.value) == f"quality: got {quality!r}; allowed: a whole number from 1 to 100"

    metrics = Metrics()
    with TestClient(create_app(tiny_engine, metrics=metrics)) as client:
        for field in ("quality", "min_quality"):
            body = {"prompt": "a fox", field: quality}
            answer = client.post("/v1/images/generations", json=body)
            told = answer.json()["error"]
            assert (answer.status_code, told["param"]) == (400, field)
            assert told["message"].startswith(f"{field}: got {quality!r}; allowed: ")
            assert told["message"].endswith("a whole number from 1 to 100")
    assert tiny_engine.num_waiting == 0

    assert main(["generate", "a fox", "--quality", str(quality)]) == 2
    told = f"quality: got {str(quality)!r}; allowed: a whole number from 1 to 100"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"policy": 3}, "policy: got 3; allowed: never, interval"),
        ({"policy": ["never"]}, r"policy: got \['never'\]; allowed: never, interval"),
        ({"policy": "ras:share=nan"}, "policy: got 'ras:share=nan'; allowed: share a number"),
        ({"size": 5}, r"size: got 5; allowed: \(width, height\) in pixels"),
        ({"size": (8,)}, r"size: got \(8,\); allowed: \(width, height\) in pixels"),
        ({"size": (8, 8, 8)}, r"size: got \(8, 8, 8\); allowed: \(width, height\) in pixels"),
        ({"size": "8x8"}, r"size: got '8x8'; allowed: \(width, height\) in pixels"),
    ],
    ids=repr,
)
def test_what_is_no_policy_and_no_size_is_refused(
    tiny_engine: Engine, options: dict, told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        tiny_engine.request("a fox", **options)
