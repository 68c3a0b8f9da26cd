"""Model directories that cannot be used: each says which file, setting or tensor is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from musiva.core.errors import BadCheckpoint, InvalidInput, MusivaError
from musiva.engine import load_denoiser, load_pipeline, shipped_models

WEIGHTS = {
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "spoiled"))


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refusal(model: Path) -> str:
    with pytest.raises(MusivaError) as error:
        load_pipeline(model, device="cpu")
    assert error.value.exit_code == 2
    return str(error.value)


@pytest.mark.parametrize("component", WEIGHTS)
@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_weights_cut_short(model: Path, component: str, keep: float) -> None:
    path = model / WEIGHTS[component]
    content = path.read_bytes()
    size = int(keep * len(content)) if isinstance(keep, float) else keep
    path.write_bytes(content[:size])
    message = refusal(model)
    assert str(path) in message
    assert "complete safetensors" in message


@pytest.mark.parametrize("component", WEIGHTS)
def test_weights_that_are_not_there(model: Path, component: str) -> None:
    (model / WEIGHTS[component]).unlink()
    assert str(model / component) in refusal(model)


@pytest.mark.parametrize("component", WEIGHTS)
@pytest.mark.parametrize("kind", ["missing", "mis-shaped"])
def test_tensors_that_do_not_fit(model: Path, component: str, kind: str) -> None:
    path = model / WEIGHTS[component]
    tensors = load_file(path)
    name = (
        sorted(n for n, t in tensors.items() if t.ndim == 2)[0]
        if component != "vae"
        else sorted(tensors)[0]
    )
    if kind == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:1].clone()
    save_file(tensors, path)
    message = refusal(model)
    assert name in message
    assert ("is missing" if kind == "missing" else "has shape") in message


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        (
            "transformer/config.json",
            {"_class_name": "Unheard"},
            "'Unheard' is no model class",
        ),
        ("transformer/config.json", {"patch_size": "2"}, "patch_size='2'; expected int"),
        ("transformer/config.json", {"norm_type": 2}, "norm_type=2; expected str"),
        ("transformer/config.json", {"num_layers": "two"}, "num_layers='two'; expected int"),
        ("vae/config.json", {"act_fn": "relu"}, "act_fn"),
        ("text_encoder/config.json", {"feed_forward_proj": "swish"}, "feed_forward_proj"),
        ("scheduler/scheduler_config.json", {"_class_name": "UniPC"}, "UniPC"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "sample"),
        ("model_index.json", {"_class_name": "FancyPipeline"}, "'FancyPipeline' is not supported"),
        ("musiva.json", {"size": [33, 32]}, "multiples of"),
        ("musiva.json", {"wings": 2}, "wings"),
    ],
)
def test_settings_that_are_not_understood(
    model: Path, file: str, change: dict, expected: str
) -> None:
    edit(model / file, lambda content: content.update(change))
    assert expected in refusal(model)


@pytest.mark.parametrize("file", ["transformer/config.json", "model_index.json", "musiva.json"])
def test_files_that_are_no_json(model: Path, file: str) -> None:
    (model / file).write_text("{")
    message = refusal(model)
    assert file in message
    assert "not valid JSON" in message


def test_a_text_encoder_of_another_width(model: Path, tmp_path: Path) -> None:
    edit(model / "transformer/config.json", lambda content: content.update(caption_channels=8))
    path = model / WEIGHTS["transformer"]
    tensors = load_file(path)
    tensors["caption_projection.linear_1.weight"] = tensors["caption_projection.linear_1.weight"][
        :, :8
    ].clone()
    save_file(tensors, path)
    assert "text encoder of width 16, denoiser for 8" in refusal(model)


def test_sharded_weights_load_like_whole_ones(model: Path) -> None:
    path = model / WEIGHTS["transformer"]
    tensors = load_file(path)
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"diffusion_pytorch_model-{i}.safetensors"
        save_file({n: tensors[n] for n in part}, path.with_name(file))
        weight_map |= dict.fromkeys(part, file)
    path.unlink()
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert len(load_denoiser(model).denoiser.segments) == 2
    path.with_name("diffusion_pytorch_model-1.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match="weights file is missing"):
        load_denoiser(model)


@pytest.mark.parametrize(
    ("option", "value"), [("dtype", "float8"), ("device", "abacus"), ("device", "meta")]
)
def test_options_are_checked_first(option: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{option}: got '{value}'"):
        load_pipeline("default", **{option: value})


def test_the_default_model_is_shipped_and_small() -> None:
    directory = shipped_models()["default"]
    sizes = {p: p.stat().st_size for p in directory.rglob("*") if p.is_file()}
    assert sum(sizes.values()) < 16_000_000
    pipeline = load_pipeline("default", device="cpu")
    assert pipeline.num_tokens((pipeline.defaults.max_side,) * 2) >= 256
    assert pipeline.defaults.steps <= 28
