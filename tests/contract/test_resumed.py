"""Contract 8: whoever takes a request over at any point, by what was told of it, comes to the same
picture by the same actions, whatever else runs there.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from random import Random

import numpy as np
import pytest

from musiva.engine.journal import Entry, Resumption
from tests.contract.driving import selection
from tests.contract.test_paged import MODELS
from tests.contract.test_policies import (
    ACTIVE,
    PATHS,
    alone,
    bench_of,
    options,
    strangers,
    submit_strangers,
)

WHIMS = {
    f"whim_of_{what}{seed}": f"whim_of_{what}:seed={seed}"
    for what in ("tiles", "gates")
    for seed in (1, 2)
}
SPECS = {**ACTIVE, **WHIMS}
SELECTED = selection(tuple(MODELS), tuple(SPECS), tuple(PATHS))
# To encode, and to decode.
BESIDE = 2


def cases() -> list[object]:
    found = []
    for case in product(MODELS, SPECS, PATHS):
        marks = () if case in SELECTED else (pytest.mark.matrix,)
        found.append(pytest.param(*case, marks=marks))
    return found


class Told:
    """What a fleet keeps of a picture: its latest record, and its latest checkpoint."""

    def __init__(self) -> None:
        self.record: bytes | None = None
        self.checkpoint: bytes | None = None
        self.evaluations = 0

    def __call__(self, entry: Entry) -> None:
        if entry.request != "r":
            return
        assert entry.evaluations >= self.evaluations
        self.record, self.evaluations = entry.record, entry.evaluations
        self.checkpoint = entry.checkpoint or self.checkpoint

    def resumption(self) -> Resumption | None:
        return None if self.record is None else Entry.resumption(self.record, self.checkpoint)


@pytest.mark.parametrize(("model", "policy", "path"), cases())
def test_8_a_request_that_is_taken_over_comes_to_the_same_picture(
    model: str, policy: str, path: str
) -> None:
    spec = SPECS[policy]
    made, request = alone(model, path, spec), options(model, path, spec)
    last = len(made.actions) + BESIDE
    draw = Random(f"{model} {policy} {path}")
    for point in sorted({0, 1, *draw.sample(range(2, last), 3), last - 1}):
        told = Told()
        first = bench_of(model, path, told=told)
        first.submit("r", **request)
        submit_strangers(first, model, path, (draw.randrange(len(ACTIVE)),), 0)
        first.run(point)
        second = bench_of(model, path, told=told)
        submit_strangers(second, model, path, (2, 7), 1)
        second.submit("r", resumed={0: told.resumption()}, **request)
        # And once more, where it is doing again what was done.
        second.run(1)
        third = bench_of(model, path)
        third.submit("r", resumed={0: told.resumption()}, **request)
        for bench in (second, third):
            bench.run()
            assert not bench.failed()
            event = bench.made("r/0")
            assert event.actions == made.actions, point
            assert np.array_equal(event.picture, made.picture), point
            assert (bench.executor.num_slots, bench.executor.store.owners) == (0, ())
        shared: Mapping[str, np.ndarray] = strangers(model, path)
        for name in ("stranger2/0", "stranger7/0"):
            assert np.array_equal(second.pictures[name], shared[name])


def test_only_pictures_that_are_left_are_made() -> None:
    """Of a request of several, of which one was done and one had not begun."""
    request = {**options("video", "euler", "never"), "num_images": 3}
    bench = bench_of("video", "euler")
    bench.submit("r", **request)
    whole = dict(bench.run())
    other = bench_of("video", "euler")
    other.submit("r", resumed={0: None, 2: None}, **request)
    assert {**other.run()}.keys() == {"r/0", "r/2"}
    for name, picture in other.pictures.items():
        assert np.array_equal(picture, whole[name])


def test_a_sample_goes_back_no_further_than_it_has_to() -> None:
    """The dense run does one evaluation again, whatever was done."""
    told = Told()
    bench = bench_of("cross", "euler", told=told)
    bench.submit("r", **options("cross", "euler", "never"))
    bench.run(6)
    resumption = told.resumption()
    assert resumption is not None
    assert resumption.checkpoint is not None
    assert resumption.checkpoint.evaluation == len(resumption.record.actions) - 1


def test_a_policy_whose_memory_cannot_be_sent_is_begun_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Secretive:
        keep, probes = 1, ()

        def begin(self, trip: object) -> object:
            return lambda: None

        def observe(self, trip: object, memory: object, *rest: object) -> object:
            return memory

        def act(self, trip: object, memory: object, evaluation: int) -> object:
            from musiva.core.types import COMPUTE

            return COMPUTE

    told = Told()
    bench = bench_of("cross", "euler", told=told)
    bench.submit("r", Secretive(), **options("cross", "euler", "never"))
    bench.run()
    assert told.record is None
    assert [r.getMessage() for r in caplog.records if "cannot be resumed" in r.getMessage()]
    assert "r/0" in bench.pictures
