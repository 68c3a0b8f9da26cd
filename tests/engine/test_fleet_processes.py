"""Workers as processes of this machine: killed, stopped, unable to begin."""

from __future__ import annotations

import os
import platform
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine.fleets import Told, expected, submit
from tests.engine.test_fleet import ASKED, check, until

from musiva.core.errors import BadCheckpoint
from musiva.engine import Engine, Fleet, Workers, load_pipeline
from musiva.engine.pipeline import Pipeline
from musiva.policy import POLICIES, load_policy_class

OWN = """
from dataclasses import dataclass
from musiva.core.types import Action

@dataclass(frozen=True)
class Count:
    done: int = 0

class Mine:
    keep, probes = 1, ()
    def begin(self, trip): return Count()
    def observe(self, trip, memory, evaluation, action, measured): return Count(memory.done + 1)
    def act(self, trip, memory, evaluation):
        skip = evaluation and memory.done % 3 == 2 and evaluation % 2
        return Action(compute=not skip, order=0)
"""


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Engine.Config:
    file = tmp_path_factory.mktemp("own") / "mine.py"
    file.write_text(OWN, encoding="utf-8")
    name, made = load_policy_class(f"{file}:Mine")
    return Engine.Config(policies={**POLICIES, name: made})


@pytest.fixture(scope="module")
def fleet(pipeline: Pipeline, tiny_model: Path, config: Engine.Config) -> Iterator[Fleet]:
    workers = Workers(count=2, threads=1, silence=5.0, losses=100, attempts=100)
    with Fleet(pipeline, workers, config, model=tiny_model, device="cpu") as made:
        yield made


def signalled(fleet: Fleet, number: int, what: signal.Signals) -> None:
    pid = fleet.members()[number].pid
    assert pid is not None
    os.kill(pid, what)


@pytest.mark.parametrize(
    "what", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.matrix)]
)
def test_a_worker_that_dies_or_hangs_loses_no_picture(
    fleet: Fleet, pipeline: Pipeline, what: signal.Signals
) -> None:
    """One that is stopped is ended for good before another one goes on with what it had."""
    until(lambda: len(fleet._roster.ready) == 2, 60.0)
    lives = [one.life for one in fleet.members()]
    begun = threading.Event()
    longer = [{**asked, "steps": 40} for asked in ASKED]
    noted = Told(lambda e: e.kind == "progress" and begun.set())
    told = [submit(fleet, Told() if i else noted, **asked) for i, asked in enumerate(longer)]
    assert begun.wait(60)
    signalled(fleet, 0, what)
    for one, asked in zip(told, longer, strict=True):
        check(one.wait(120), expected(pipeline, asked))
    until(lambda: len(fleet._roster.ready) == 2, 60.0)
    members = fleet.members()
    assert [one.life for one in members] == [lives[0] + 1, lives[1]]
    assert {one.host for one in members} == {platform.node()}
    # What a worker tells, checkpoints among it, is more than what it is asked for.
    (link,) = members[1].links
    assert link.sent_bytes > link.received_bytes > 0


def test_what_a_policy_of_a_user_remembers_goes_along(fleet: Fleet, config: Engine.Config) -> None:
    until(lambda: len(fleet._roster.ready) == 2, 60.0)
    asked = {"prompt": "a fox", "size": (32, 32), "steps": 60, "seed": 2, "policy": "mine"}
    with Engine(fleet.pipeline, config) as engine:
        alone = Told()
        engine.submit(engine.request(**asked), alone)  # type: ignore[arg-type]
        alone.wait()
    killed, kept = threading.Event(), []

    def end_once(event) -> None:
        if event.kind == "progress" and event.evaluation >= 20 and not killed.is_set():
            killed.set()
            ticket = fleet._tickets[event.request]
            kept.append(len(ticket.kept[0][0]))
            ticket.member.hold.kill()

    told = submit(fleet, Told(end_once), **asked)
    check(told.wait(120), [alone.pictures[0]])
    assert kept[0] > 0
    assert told.events[-2].actions == alone.events[-2].actions


def test_a_model_that_no_worker_can_load_is_told(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "Nothing"}', encoding="utf-8")
    with pytest.raises(BadCheckpoint, match="'Nothing' is not supported"):
        Fleet(pipeline, Workers(count=1, threads=1), model=tmp_path, device="cpu")
