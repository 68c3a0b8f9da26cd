"""Pipelines of diffusers around captured denoisers: the same pictures, served like any other."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import SanaPipeline
from safetensors.torch import load_file, save_file

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.core.types import Prompt
from musiva.engine import Engine, load_pipeline
from musiva.perf.small_pipelines import SMALL, largest_error, write

# diffusers hands a numpy array to tensors in a way that numpy deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines") / "sd3"
    write("sd3", path)
    return path


@pytest.fixture(scope="module")
def engine(directory: Path) -> Iterator[Engine]:
    with Engine.load(directory, device="cpu") as engine:
        yield engine


# Of one of them the export takes three quarters of a minute; the other is captured elsewhere.
SLOW = {"qwen_image": pytest.mark.matrix, "z_image": pytest.mark.matrix}
NAMES = [pytest.param(name, marks=SLOW.get(name, ())) for name in SMALL]


@pytest.mark.parametrize("name", NAMES)
def test_same_pictures_as_diffusers(name: str, tmp_path: Path) -> None:
    assert largest_error(name, tmp_path / name) <= 1e-3


@pytest.fixture(scope="module")
def sana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines") / "sana"
    write("sana", path)
    return path


def test_a_negative_prompt_is_encoded_in_its_own_way(sana: Path) -> None:
    """As the pipeline does, and without its padding."""
    theirs = SanaPipeline.from_pretrained(sana)
    told = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    with torch.no_grad():
        rows, mask, other, other_mask = theirs.encode_prompt(
            "a red fox", True, negative_prompt="a red fox", complex_human_instruction=told
        )
    text = load_pipeline(sana, device="cpu").text
    words = text.words(
        [Prompt("a red fox"), Prompt("a red fox", negative=True), Prompt("", negative=True)]
    )
    assert torch.equal(words[0].rows_LD, rows[0][mask[0] == 1])
    assert torch.equal(words[1].rows_LD, other[0][other_mask[0] == 1])
    assert not torch.allclose(words[0].rows_LD[-1], words[1].rows_LD[-1], atol=1e-2)
    assert words[2].rows_LD.shape[0] == 1


def test_one_text_may_be_both_prompts(sana: Path) -> None:
    with Engine.load(sana, device="cpu") as engine:
        asked = {"size": (64, 32), "steps": 3, "seed": 1, "guidance": 4.0}
        both, one = (
            engine.generate("a red fox", negative_prompt=negative, **asked)[0]
            for negative in ("a red fox", "")
        )
        plain = engine.generate("a red fox", **{**asked, "guidance": 1.0})[0]
    assert not np.array_equal(np.asarray(both), np.asarray(plain))
    assert not np.array_equal(np.asarray(both), np.asarray(one))


def test_previews_of_an_autoencoder_of_diffusers(sana: Path) -> None:
    with Engine.load(sana, device="cpu") as engine:
        events = list(engine.stream("a red fox", size=(64, 32), steps=4, seed=1, previews=2))
    shown = [event.picture for event in events if event.kind == "preview"]
    assert [picture.shape for picture in shown] == [(32, 64, 3)] * 2
    assert not np.array_equal(shown[0], shown[1])


def test_mixed_requests_share_packs_and_keep_their_pictures(engine: Engine) -> None:
    asked = [
        {"prompts": "a red fox", "size": (32, 32), "steps": 6, "seed": 1},
        {"prompts": "a snowy mountain", "size": (48, 64), "steps": 5, "seed": 2},
    ]
    alone = [np.asarray(engine.generate(**one)[0]) for one in asked]
    with ThreadPoolExecutor() as threads:
        together = list(threads.map(lambda one: engine.generate(**one)[0], asked))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, np.asarray(other))


@pytest.mark.parametrize(
    "policy",
    [
        "interval:interval=2",
        "first_block:threshold=100",
        "tea_cache:threshold=100",
        "ras",
        "refine",
    ],
)
def test_policies_run_on_it(engine: Engine, policy: str) -> None:
    """Random weights make no picture that a policy could come near to: it runs, and does less."""
    (dense,) = engine.generate("a red fox", size=(64, 64), steps=8, seed=1)
    (picture,) = engine.generate("a red fox", size=(64, 64), steps=8, seed=1, policy=policy)
    assert not np.array_equal(np.asarray(dense), np.asarray(picture))


def test_a_prompt_that_is_too_long_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match="at most 256 tokens"):
        engine.generate("fox " * 300)


def test_a_missing_component_is_named(directory: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(directory, broken)
    shutil.rmtree(broken / "text_encoder_3")
    with pytest.raises(BadCheckpoint, match="text_encoder_3"):
        load_pipeline(broken, device="cpu")
    shutil.rmtree(broken / "vae")
    with pytest.raises(BadCheckpoint, match="vae"):
        load_pipeline(broken, device="cpu")


def test_weights_that_are_not_finite_fail_the_request_alone(
    directory: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(directory, broken)
    file = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_file(tensors, file)
    with (
        Engine.load(broken, device="cpu") as engine,
        pytest.raises(Exception, match="not finite"),
    ):
        engine.generate("a red fox", size=(32, 32), steps=2)


def test_pickles_are_not_read(directory: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(directory, broken)
    weights = broken / "text_encoder_3" / "model.safetensors"
    torch.save(load_file(weights), broken / "text_encoder_3" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(BadCheckpoint):
        load_pipeline(broken, device="cpu")
