"""Previews: where they come, what they show, and that they change nothing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musiva.core.errors import ExecutionFailed, InvalidInput
from musiva.core.types import Kind, Outcome, Request, StepPlan, StepResult
from musiva.core.types import Path as SolverPath
from musiva.engine import Engine, LatentPreview, Pipeline, load_pipeline
from musiva.engine.preview import synthetic_pictures
from musiva.engine.sample import SampleState, observe
from musiva.engine.scheduler import Scheduler
from musiva.engine.state import EngineState, admit, update
from musiva.models.vae import AutoencoderKL
from musiva.perf.quality import psnr
from musiva.policy import Never, Trip


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


@given(st.integers(1, 300), st.data())
def test_previews_are_spread_evenly_and_never_the_last(evaluations: int, data) -> None:
    previews = data.draw(st.integers(0, evaluations - 1))
    request = Request(
        id="r",
        prompt="a",
        size=(32, 32),
        path=SolverPath(steps=evaluations),
        seed=0,
        guidance=1.0,
        previews=previews,
    )
    state, scheduler = EngineState(), Scheduler.Config().build()
    trip = Trip((0.5,) * evaluations, (1.0,) * evaluations, (0.0,) * evaluations)
    sample = SampleState("r/0", request, 0, 16, True, (Never(),), trip)
    assert observe(sample) is None
    admit(state, [sample])
    came = []
    while (plan := scheduler.schedule(state, 0.0)) is not None:
        wants = any(getattr(item, "preview", False) for item in plan.items)
        picture = 0 if wants or plan.kind is Kind.DECODE else None
        result = StepResult(plan.number, (Outcome(picture=picture),) * len(plan.items), 0.0)
        came += [e.evaluation for e in update(state, plan, result, 0.0) if e.kind == "preview"]
    assert came == [k * evaluations // (previews + 1) for k in range(1, previews + 1)]
    gaps = np.diff([0, *came, evaluations])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("options", "value", "most"),
    [
        ({"steps": 5}, 5, 4),
        ({"steps": 5}, -1, 4),
        ({"steps": 5}, "2", 4),
        ({"steps": 5}, True, 4),
        ({"steps": 1}, 1, 0),
        ({"steps": 5, "sampler": "heun"}, 9, 8),
    ],
)
def test_numbers_that_are_not_allowed(
    tiny_engine: Engine, options: dict, value: object, most: int
) -> None:
    with pytest.raises(InvalidInput, match=f"^previews: got .* from 0 to {most}$") as caught:
        tiny_engine.request("a fox", previews=value, **options)
    assert caught.value.field == "previews"


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++2m"])
def test_events_come_with_pictures_of_full_size(tiny_engine: Engine, sampler: str) -> None:
    events = list(
        tiny_engine.stream(
            "a fox", size=(48, 32), steps=5, sampler=sampler, seed=1, num_images=2, previews=3
        )
    )
    previews = [e for e in events if e.kind == "preview"]
    total = 9 if sampler == "heun" else 5
    assert sorted((e.index, e.evaluation) for e in previews) == [
        (i, k * total // 4) for i in (0, 1) for k in (1, 2, 3)
    ]
    for event in previews:
        assert event.num_evaluations == total
        assert isinstance(event.picture, np.ndarray)
        assert event.picture.shape == (32, 48, 3)
        assert event.picture.dtype == np.uint8
        before = events[events.index(event) - 1]
        assert (before.kind, before.evaluation) == ("progress", event.evaluation)


OPTIONS = (
    {"prompt": "a red fox", "size": (64, 48), "steps": 7, "seed": 3, "previews": 6},
    {"prompt": "a blue whale", "size": (32, 32), "steps": 4, "seed": 4, "previews": 2},
    {"prompt": "an old bicycle", "size": (32, 64), "steps": 5, "seed": 6, "sampler": "heun"},
)


def pictures_of(engine: Engine, *options: dict) -> dict[tuple[str, str, int], np.ndarray]:
    """(prompt, kind, evaluation) -> pixels, of requests that run together."""
    streams = [engine.stream(**one) for one in options]
    return {
        (one["prompt"], event.kind, event.evaluation): event.picture
        for one, stream in zip(options, streams, strict=True)
        for event in stream
        if event.kind in ("preview", "picture")
    }


def test_previews_change_no_picture_and_depend_on_no_neighbour(pipeline: Pipeline) -> None:
    with Engine(pipeline) as engine:
        together = pictures_of(engine, *OPTIONS)
        alone = {}
        for one in OPTIONS:
            alone |= pictures_of(engine, one)
        without = pictures_of(engine, *({**one, "previews": 0} for one in OPTIONS))
    assert together.keys() == alone.keys()
    assert len(together) == 6 + 2 + 3
    for key, picture in together.items():
        assert np.array_equal(picture, alone[key]), key
    assert len(without) == 3
    for key, picture in without.items():
        assert np.array_equal(picture, together[key]), key


def test_previews_that_fail_fail_those_who_asked_for_them(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fit(vae: AutoencoderKL) -> LatentPreview:
        raise RuntimeError("out of memory")

    with Engine(pipeline) as engine:
        (expected,) = engine.generate("a fox", steps=6, seed=1)
        monkeypatch.setattr(LatentPreview, "fit", fit)
        plain = engine.stream("a fox", steps=6, seed=1)
        shown = engine.stream("a fox", steps=6, seed=1, previews=3)
        with pytest.raises(ExecutionFailed, match="preview failed: out of memory"):
            list(shown)
        pictures = [event.picture for event in plain if event.kind == "picture"]
    assert np.array_equal(pictures[0], np.asarray(expected))
    assert "previews of" in caplog.text


def test_plans_with_previews_replay(pipeline: Pipeline) -> None:
    plans: list[StepPlan] = []
    with Engine(pipeline, observe=lambda plan, _: plans.append(plan)) as engine:
        expected = pictures_of(engine, OPTIONS[0])
    from musiva.engine import InlineExecutor

    executor = InlineExecutor(pipeline)
    replayed = [o.picture for plan in plans for o in executor.execute(plan).outcomes]
    shown = [picture for picture in replayed if picture is not None]
    assert len(shown) == len(expected)
    for picture, wanted in zip(shown, expected.values(), strict=True):
        assert np.array_equal(picture, wanted)


def test_a_sample_that_is_not_a_number_has_no_preview(tiny_model: Path) -> None:
    pipeline = load_pipeline(tiny_model, device="cpu")
    with torch.no_grad():
        pipeline.denoiser.module.scale_shift_table.fill_(float("nan"))
    results: list[StepResult] = []
    with (
        Engine(pipeline, observe=lambda _, result: results.append(result)) as engine,
        pytest.raises(Exception, match="not finite"),
    ):
        list(engine.stream("a fox", steps=4, previews=3))
    assert all(o.picture is None for result in results for o in result.outcomes)


def quartered(picture_HWC: np.ndarray) -> np.ndarray:
    height, width, _ = picture_HWC.shape
    return picture_HWC.reshape(height // 4, 4, width // 4, 4, 3).astype(float).mean((1, 3))


def test_previews_of_the_default_model_tend_to_its_picture() -> None:
    with Engine.load("default", device="cpu") as engine:
        events = list(engine.stream("a red apple", steps=12, seed=2, size=(64, 64), previews=11))
    final = next(e.picture for e in events if e.kind == "picture")
    shown = [quartered(e.picture) for e in events if e.kind == "preview"]
    small = quartered(final)
    likeness = [psnr(one, small) for one in shown]
    assert likeness[-1] > max(17, likeness[0])
    assert np.corrcoef(shown[-1].ravel(), small.ravel())[0, 1] > 0.9


def test_the_map_is_cheap_beside_what_it_replaces() -> None:
    pipeline = load_pipeline("default", device="cpu")
    preview = LatentPreview.fit(pipeline.vae)
    latent = torch.randn(pipeline.latent_shape((128, 128)))

    def seconds(work) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    with torch.inference_mode():
        assert (
            seconds(lambda: preview.show([latent])) < seconds(lambda: pipeline.decode(latent)) / 8
        )


def tiny_vae(latents: int, widths: tuple[int, ...], **config: object) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL.from_config(
        {
            "latent_channels": latents,
            "block_out_channels": widths,
            "down_block_types": ("DownEncoderBlock2D",) * len(widths),
            "up_block_types": ("UpDecoderBlock2D",) * len(widths),
            "norm_num_groups": 4,
            "sample_size": 32,
            **config,
        }
    )


@pytest.mark.parametrize(
    ("latents", "widths", "config"),
    [
        (4, (8, 8, 8, 8), {}),
        (16, (8, 8), {"scaling_factor": 0.36, "shift_factor": 0.12}),
        (3, (4,), {"scaling_factor": 7.0}),
    ],
)
def test_any_autoencoder_and_scale(latents: int, widths: tuple[int, ...], config: dict) -> None:
    """The map sees the latents as the denoiser does, so that scale and shift cancel out. Random
    weights keep little of a picture, yet least squares may not be worse than its mean.
    """
    vae = tiny_vae(latents, widths, **config)
    plain = tiny_vae(latents, widths)
    plain.load_state_dict(vae.state_dict())
    pixels = synthetic_pictures(1, 5 * vae.downscale)
    with torch.no_grad():
        mean, _ = vae.encode(pixels)
        shown = LatentPreview.fit(vae).show([vae.scale(mean)[0], vae.scale(mean)[0, :, :3]])
        again = LatentPreview.fit(plain).show([plain.scale(mean)[0]])
    side = 5 * vae.downscale
    assert [one.shape for one in shown] == [(side, side, 3), (3 * vae.downscale, side, 3)]
    assert np.abs(shown[0].astype(int) - again[0].astype(int)).max() <= 1
    fitted = synthetic_pictures(32, 8 * vae.downscale)
    with torch.no_grad():
        latent_BCHW = vae.scale(vae.encode(fitted)[0])
    seen = np.stack(LatentPreview.fit(vae).show(list(latent_BCHW)))
    truth = ((fitted.permute(0, 2, 3, 1) + 1) * 127.5).numpy()
    grey = np.broadcast_to(truth.mean((0, 1, 2)), truth.shape)
    assert psnr(seen, truth) > psnr(grey, truth)


def test_the_fit_repeats_and_leaves_no_trace() -> None:
    vae = tiny_vae(4, (8, 8))
    state = torch.get_rng_state()
    first, second = LatentPreview.fit(vae), LatentPreview.fit(vae)
    latent = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(first.show([latent])[0], second.show([latent])[0])
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in vae.parameters())
