"""Qualities below 100 on a calibrated model: cheaper, near, the same alone and together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musiva.core.errors import InvalidInput
from musiva.core.types import Event
from musiva.engine import Engine, load_pipeline
from musiva.engine.pipeline import Pipeline
from musiva.perf.quality import psnr
from musiva.policy import floor_db, promising

OPTIONS = {"size": (48, 32), "steps": 20, "seed": 3}
PROMPTS = ("a red fox", "two green cats", "a tree on snow")


@pytest.fixture(scope="module")
def pipeline(calibrated_model: Path) -> Pipeline:
    return load_pipeline(calibrated_model, device="cpu")


def drawn(engine: Engine, prompt: str, **options: object) -> Event:
    events = list(engine.stream(prompt, **{**OPTIONS, **options}))
    (picture,) = [e for e in events if e.kind == "picture"]
    return picture


def test_a_lower_quality_computes_less_and_stays_near(pipeline: Pipeline) -> None:
    with Engine(pipeline) as engine:
        for prompt in PROMPTS:
            dense = drawn(engine, prompt)
            costs, likeness = [], []
            for tolerance in (0.05, 0.1, 0.2, 0.33):
                one = drawn(engine, prompt, policy=f"adaptive:tolerance={tolerance}")
                costs.append(one.computed)
                likeness.append(psnr(np.asarray(one.picture), np.asarray(dense.picture)))
            held = drawn(engine, prompt, policy="interval:interval=10,warmup=1,order=0")
            assert dense.computed == 20
            assert costs == sorted(costs, reverse=True)
            assert costs[0] > costs[-1]
            assert likeness[0] > likeness[-1]
            assert likeness[1] > psnr(np.asarray(held.picture), np.asarray(dense.picture))


def test_a_quality_chooses_the_policy(pipeline: Pipeline) -> None:
    calibration = pipeline.calibration
    assert calibration is not None
    with Engine(pipeline) as engine:
        for quality in (1, 30, 60, 80, 95):
            request = engine.request("a red fox", quality=quality, **OPTIONS)
            tolerance = calibration.tolerance(floor_db(quality), 20)
            wanted = "never" if tolerance is None else promising(tolerance)
            assert request.policy == wanted
            told = engine.parameters(request, 0)
            assert (told["quality"], told["policy"]) == (quality, None)
        assert engine.request("a red fox", **OPTIONS).policy == "never"
        with pytest.raises(InvalidInput, match="none beside a quality below 100"):
            engine.request("a red fox", quality=80, policy="never", **OPTIONS)


def test_packed_equals_alone(pipeline: Pipeline) -> None:
    """Pictures that are at other evaluations, and that surprise by other amounts."""
    policies = ("adaptive:tolerance=0.1", "never", "adaptive:tolerance=0.2", "interval:order=0")
    with Engine(pipeline) as engine:
        alone = [drawn(engine, "a red fox", policy=p, seed=i) for i, p in enumerate(policies)]
        streams = [
            engine.stream("a red fox", **{**OPTIONS, "seed": i}, policy=policy)
            for i, policy in enumerate(policies)
        ]
        for stream, expected in zip(streams, alone, strict=True):
            (picture,) = [e for e in stream if e.kind == "picture"]
            assert np.array_equal(np.asarray(picture.picture), np.asarray(expected.picture))
            assert picture.computed == expected.computed


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++2m"])
def test_every_sampler_takes_calibrated_forecasts(pipeline: Pipeline, sampler: str) -> None:
    with Engine(pipeline) as engine:
        dense = drawn(engine, "a red fox", sampler=sampler)
        near = drawn(engine, "a red fox", sampler=sampler, policy="adaptive:tolerance=0.05")
        far = drawn(engine, "a red fox", sampler=sampler, policy="adaptive:tolerance=0.33")
    assert far.computed < near.computed <= dense.computed
    likeness = [psnr(np.asarray(e.picture), np.asarray(dense.picture)) for e in (near, far)]
    assert likeness[0] > likeness[1] > 10


def test_a_model_without_calibration_says_so(tiny_engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="musiva calibrate") as caught:
        tiny_engine.request("a red fox", quality=80)
    assert caught.value.field == "quality"
    with pytest.raises(InvalidInput, match="musiva calibrate") as caught:
        tiny_engine.request("a red fox", policy="adaptive")
    assert caught.value.field == "policy"
