"""Pipelines of clips: the same clips as diffusers make, served like any picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musiva.core.clip import Clip
from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.engine import Engine, Pipeline, Scheduler, load_pipeline
from musiva.perf.calibration import Plan, calibrate
from musiva.perf.small_clips import CLIPS, LATTE_FRAMES, largest_clip_error, write_clips

# diffusers hands a numpy array to tensors in a way that numpy deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines") / "wan"
    write_clips("wan", path)
    return path


@pytest.fixture(scope="module")
def engine(directory: Path) -> Iterator[Engine]:
    with Engine.load(directory, device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def latte(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    path = tmp_path_factory.mktemp("pipelines") / "latte"
    write_clips("latte", path)
    return load_pipeline(path, device="cpu")


def pixels(clip: Clip | Image.Image) -> np.ndarray:
    assert isinstance(clip, Clip)
    return np.stack([np.asarray(frame) for frame in clip.frames])


LONG = ("latte", "cogvideox", "cogvideox_15", "cogvideox_2b")
SHORTER = [pytest.param(n, marks=pytest.mark.matrix) if n in LONG else n for n in CLIPS]


@pytest.mark.parametrize("name", SHORTER)
def test_same_clips_as_diffusers(name: str, tmp_path: Path) -> None:
    assert largest_clip_error(name, tmp_path / name) <= 1e-3


def test_clips_of_any_size_and_length_share_packs_and_keep_their_bytes(engine: Engine) -> None:
    asked = [
        {"prompts": "a red fox", "size": (32, 32), "frames": 9, "steps": 6, "seed": 1},
        {"prompts": "a snowy mountain", "size": (48, 64), "frames": 5, "steps": 5, "seed": 2},
        {"prompts": "two green apples", "size": (64, 32), "frames": 1, "steps": 4, "seed": 3},
    ]
    alone = [engine.generate(**one)[0] for one in asked]
    with ThreadPoolExecutor() as threads:
        together = list(threads.map(lambda one: engine.generate(**one)[0], asked))
    assert [type(one) for one in alone] == [Clip, Clip, Image.Image]
    for one, other in zip(alone[:2], together[:2], strict=True):
        assert np.array_equal(pixels(one), pixels(other))
    assert np.array_equal(np.asarray(alone[2]), np.asarray(together[2]))
    assert pixels(alone[0]).shape == (9, 32, 32, 3)
    assert pixels(alone[1]).shape == (5, 64, 48, 3)


@pytest.mark.parametrize("policy", ["interval:interval=2", "ras:warmup=1", "refine"])
def test_policies_run_on_clips(engine: Engine, policy: str) -> None:
    """Random weights make no clip that a policy could come near to: it runs, and does less."""
    asked = {"size": (64, 64), "frames": 9, "steps": 8, "seed": 1}
    (dense,) = engine.generate("a red fox", **asked)
    *_, event, _ = engine.stream("a red fox", **asked, policy=policy)
    assert event.kind == "picture"
    assert event.cost < event.num_evaluations
    assert event.picture.shape == pixels(dense).shape
    assert not np.array_equal(event.picture, pixels(dense))
    if policy != "interval:interval=2":
        assert event.tiles is not None
        assert len(event.tile_counts) == event.tiles[0] * event.tiles[1]


def test_latents_start_a_clip_instead_of_the_noise_of_its_seed(engine: Engine) -> None:
    asked = {"size": (32, 48), "frames": 9, "steps": 3}
    shape = engine.pipeline.latent_shape((32, 48), 9)
    assert shape == (4, 3, 6, 4)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    (given,) = engine.generate("a red fox", **asked, latents=[noise])
    (drawn,) = engine.generate("a red fox", **asked, seed=7)
    assert np.array_equal(pixels(given), pixels(drawn))
    with pytest.raises(InvalidInput, match=r"latents\[0\]: got \(4, 2, 6, 4\); .*\[4, 3, 6, 4\]"):
        engine.generate("a red fox", **asked, latents=[noise[:, :2]])


@pytest.mark.parametrize(
    ("frames", "allowed"),
    [
        (6, "1, 5, 9 and so on to 161"),
        (0, "a whole number from 1"),
        (165, "1, 5, 9 and so on to 161"),
        (5.0, "a whole number from 1"),
    ],
)
def test_counts_that_a_model_does_not_take(engine: Engine, frames: int, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=r"^frames: got") as caught:
        engine.request("a red fox", frames=frames)
    assert (caught.value.field, caught.value.allowed) == ("frames", allowed)


def test_a_model_of_pictures_makes_no_clips(tiny_model: Path) -> None:
    with (
        Engine.load(tiny_model, device="cpu") as engine,
        pytest.raises(InvalidInput, match="frames: got 5; allowed: 1: the model makes pictures"),
    ):
        engine.request("a red fox", frames=5)


def test_what_a_clip_is_by_default(engine: Engine, latte: Pipeline) -> None:
    request = engine.request("a red fox")
    assert (request.size, request.frames, request.fps) == ((832, 480), 81, 16.0)
    assert (request.path.steps, request.guidance) == (50, 5.0)
    parameters = engine.parameters(request, 0)
    assert (parameters["frames"], parameters["fps"]) == (81, 16.0)
    assert latte.defaults.frames == latte.defaults.max_frames == LATTE_FRAMES
    with pytest.raises(InvalidInput, match="frames: got 1; allowed: 4"):
        latte.check_frames(1)


def test_clips_have_no_calibration_yet(latte: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="a model of pictures; this one makes clips"):
        calibrate(latte, Plan(["a red fox"] * 8, [4]))


def test_previews_are_pictures_of_the_middle(engine: Engine) -> None:
    asked = {"size": (48, 32), "frames": 9, "steps": 4, "seed": 1}
    events = list(engine.stream("a red fox", **asked, previews=2))
    shown = [event.picture for event in events if event.kind == "preview"]
    assert [picture.shape for picture in shown] == [(32, 48, 3)] * 2
    (done,) = [event.picture for event in events if event.kind == "picture"]
    assert done.shape == (9, 32, 48, 3)


def test_frames_that_are_decoded_one_by_one(latte: Pipeline) -> None:
    """In steps of their own, where the time that a step may take says so."""
    latent = torch.randn(latte.latent_shape((32, 48), LATTE_FRAMES))
    parts = latte.decode_parts(LATTE_FRAMES)
    assert len(parts) == len(latte.decode_shares(LATTE_FRAMES)) == LATTE_FRAMES
    with torch.inference_mode():
        clip_3FHW = latte.decode(latent, LATTE_FRAMES)
        for i in range(LATTE_FRAMES):
            frame_3HW = latte.vae.decode(latte.vae.unscale(latent[None, :, i]))[0]
            assert torch.equal(clip_3FHW[:, i], frame_3HW)
    asked = {"size": (32, 32), "steps": 2, "seed": 1}
    config = Engine.Config(scheduler=Scheduler.Config(discipline="fifo"))
    with Engine(latte, config) as engine:
        (clip,) = engine.generate("a red fox", **asked)
    assert pixels(clip).shape == (LATTE_FRAMES, 32, 32, 3)


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("boundary_ratio", 0.9, "boundary_ratio: got 0.9; supported: null"),
        ("expand_timesteps", True, "expand_timesteps: got True; supported: False"),
        ("transformer_2", ["diffusers", "WanTransformer3DModel"], "transformer_2: got"),
    ],
)
def test_what_is_not_served_is_refused(
    directory: Path, tmp_path: Path, entry: str, value: object, said: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for part in directory.iterdir():
        (other / part.name).symlink_to(part)
    index = json.loads((directory / "model_index.json").read_text())
    (other / "model_index.json").unlink()
    (other / "model_index.json").write_text(json.dumps({**index, entry: value}))
    with pytest.raises(BadCheckpoint, match=said):
        load_pipeline(other, device="cpu")


def test_a_clip_of_frames_that_a_directory_asks_for(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for part in directory.iterdir():
        (other / part.name).symlink_to(part)
    limits = {"size": [32, 32], "min_side": 16, "max_side": 64, "max_frames": 17}
    (other / "musiva.json").write_text(json.dumps({**limits, "frames": 9, "fps": 12}))
    pipeline = load_pipeline(other, device="cpu")
    assert pipeline.defaults.frames == 9
    with pytest.raises(InvalidInput, match="allowed: 1, 5, 9 and so on to 17"):
        pipeline.check_frames(21)
    (other / "musiva.json").write_text(json.dumps({**limits, "frames": 8}))
    with pytest.raises(BadCheckpoint, match="frames: got 8; allowed: 1, 5, 9 and so on to 17"):
        load_pipeline(other, device="cpu")
