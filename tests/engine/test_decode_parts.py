"""Decoding that takes long is cut into steps: what is urgent comes between, and the picture is the
same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.costs import linear_cost
from tests.engine.site import ROWS, STEPS, Site

from musiva.core.types import DecodeItem, DenoiseItem, StepPlan, StepResult
from musiva.engine import (
    Engine,
    InlineExecutor,
    Intake,
    Pipeline,
    Scheduler,
    StepLoop,
    load_pipeline,
)
from musiva.telemetry import Metrics

SHARES = (0.1, 0.2, 0.3, 0.4)
# A picture of Site has 32 x 32 pixels, and takes a second.
SLOW = linear_cost(decode=0.0, pixel=1.0 / 1024)


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def decoded(plans: list[StepPlan]) -> list[tuple[int, int | None]]:
    return [(i.first, i.last) for p in plans for i in p.items if isinstance(i, DecodeItem)]


class Cut:
    """A loop on a real model, for which decoding is made out to be long."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.plans: list[StepPlan] = []
        self.metrics = Metrics()
        self.executor = InlineExecutor(pipeline)
        config = Scheduler.Config(cost=linear_cost(row=1e-9, pixel=1.0))
        self.loop = StepLoop(self.executor, config.build(), self.observe)
        self.intake = Intake(pipeline, tariff=self.loop.scheduler.tariff)

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        self.plans.append(plan)
        self.metrics.observe(plan, result)

    def submit(self, prompt: str, **options) -> None:
        request = self.intake.request(prompt, **options)
        self.loop.submit(
            request,
            policies=self.intake.policies_of(request),
            trip=self.intake.trip_of(request),
            rows=self.intake.rows_of(request),
            decode_shares=self.intake.pipeline.decode_shares(),
        )


@pytest.mark.parametrize("num_images", [1, 2])
def test_parts_give_the_same_picture(pipeline: Pipeline, num_images: int) -> None:
    cut, options = Cut(pipeline), {"steps": 2, "seed": 3, "size": (48, 32)}
    cut.submit("a fox", num_images=num_images, **options)
    pictures = []
    while (events := cut.loop.step()) is not None:
        pictures += [e.picture for e in events if e.kind == "picture"]
    with Engine(pipeline) as engine:
        expected = engine.generate("a fox", num_images=num_images, **options)
    assert len(pictures) == num_images
    for picture, whole in zip(pictures, expected, strict=True):
        assert np.array_equal(picture, np.asarray(whole))
    count = len(pipeline.decode_parts())
    each = [(i, i + 1) for i in range(count - 1)] + [(count - 1, None)]
    assert sorted(decoded(cut.plans), key=str) == sorted(num_images * each, key=str)
    made = cut.metrics.registry.get_sample_value("musiva_pictures_total")
    assert made == num_images


def test_a_picture_that_is_cancelled_between_parts_leaves_nothing(pipeline: Pipeline) -> None:
    cut = Cut(pipeline)
    cut.submit("a fox", steps=2, seed=3, request_id="r")
    while len(decoded(cut.plans)) < 2:
        cut.loop.step()
    assert cut.loop.cancel("r")
    while cut.loop.step() is not None:
        pass
    assert cut.executor.num_slots == 0
    assert len(decoded(cut.plans)) == 2


def test_what_is_urgent_comes_between_parts() -> None:
    site = Site(cost=SLOW)
    calm = site.submit(levels=False, decode_shares=SHARES)
    while not decoded(site.plans):
        site.run(1e-9)
    urgent = site.submit(levels=False, priority=1, decode_shares=SHARES)
    site.run()
    assert site.finished[urgent] < site.finished[calm]
    assert decoded(site.plans) == [
        (0, 1),
        (0, 1),
        (1, 2),
        (2, 3),
        (3, None),
        (1, 2),
        (2, 3),
        (3, None),
    ]
    items = [i for p in site.plans for i in p.items if isinstance(i, DenoiseItem)]
    assert len(items) == 2 * STEPS
    # Cutting costs nothing here: all work was done once.
    assert site.clock.now() == pytest.approx(2 * (STEPS * ROWS * 1e-3 + 1.0))
    report = site.report(calm)
    assert report.decode == pytest.approx(1.0)


def test_decoding_that_is_short_is_one_step() -> None:
    site = Site(cost=linear_cost(decode=0.0, pixel=0.1 / 1024))
    site.submit(levels=False, decode_shares=SHARES)
    site.run()
    assert decoded(site.plans) == [(0, None)]


def test_a_part_may_be_longer_than_a_pack() -> None:
    site = Site(cost=SLOW)
    site.submit(levels=False, decode_shares=(0.05, 0.05, 0.9))
    site.run()
    assert decoded(site.plans) == [(0, 2), (2, None)]
