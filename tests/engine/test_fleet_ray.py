"""Workers as actors of a Ray that starts for the test; only where Ray is installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.engine.fleets import Told, expected, submit
from tests.engine.test_fleet import ASKED, check, until

from musiva.core.errors import InvalidInput, Unavailable
from musiva.engine import Engine, Fleet, RayCluster, Workers, load_pipeline
from musiva.engine.pipeline import Pipeline

pytestmark = pytest.mark.matrix


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    made = RayCluster("ray")
    yield made
    made.close()


def fleet_of(pipeline: Pipeline, model: Path, cluster: RayCluster, **workers: int) -> Fleet:
    chosen = Workers(threads=1, losses=100, attempts=100, **workers)
    return Fleet(pipeline, chosen, Engine.Config(), model=model, device="cpu", launcher=cluster)


def test_actors_make_the_pictures_and_one_that_dies_loses_none(
    pipeline: Pipeline, tiny_model: Path, cluster: RayCluster
) -> None:
    with fleet_of(pipeline, tiny_model, cluster, count=2) as fleet:
        lost = threading.Event()

        def lose(event) -> None:
            if event.kind == "progress" and event.evaluation >= 3 and not lost.is_set():
                lost.set()
                fleet._tickets[event.request].member.hold.kill()

        told = [submit(fleet, Told(lose), **asked) for asked in ASKED]
        for one, asked in zip(told, ASKED, strict=True):
            check(one.wait(120), expected(pipeline, asked))
        until(lambda: len(fleet._roster.ready) == 2, 60.0)


def test_ranks_in_actors_share_a_picture(
    pipeline: Pipeline, tiny_model: Path, cluster: RayCluster
) -> None:
    with fleet_of(pipeline, tiny_model, cluster, count=1, degree=2) as fleet:
        told = submit(fleet, Told(), **ASKED[0]).wait(120)
        (picture,) = expected(pipeline, ASKED[0])
        assert np.abs(told.pictures[0].astype(int) - picture).max() <= 2


def test_what_the_cluster_has_no_room_for(
    pipeline: Pipeline, tiny_model: Path, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musiva.engine.fleet.cluster.PLACED", 1.0)
    workers = Workers(count=1, threads=10_000)
    with pytest.raises(Unavailable, match="no room for worker 0, which takes 1 x"):
        Fleet(pipeline, workers, model=tiny_model, launcher=cluster)


def test_addresses_that_are_none() -> None:
    pytest.importorskip("ray")
    with pytest.raises(InvalidInput, match="cluster: got 'http://x'; allowed: ray"):
        RayCluster("http://x")
