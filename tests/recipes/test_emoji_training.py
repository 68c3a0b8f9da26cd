"""The whole recipe on a few emoji: both stages, a restart, samples, and the model it leaves."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.engine import Engine
from musiva.train import Stage, load_recipe
from tests.recipes.fakes import few_emoji

STEPS = {"vae": 2, "denoiser": 5}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The recipe as it is, but for its data and its numbers of steps, pictures and rows."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    few_emoji(tmp_path, monkeypatch)
    recipe = load_recipe(str(Path(__file__).parents[2] / "recipes" / "emoji.py"))
    monkeypatch.setattr(recipe, "DATA", tmp_path)
    monkeypatch.setattr(recipe, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(recipe, "VAE", tmp_path / "runs" / "vae" / "export")
    monkeypatch.chdir(tmp_path)
    few = {"pixels": 64, "steps": 1, "prompts": ("a red circle",), "per_prompt": 2}
    sheet = recipe.sample_sheet
    monkeypatch.setattr(recipe, "sample_sheet", lambda *paths: sheet(*paths, **few))
    whole = recipe.config

    def short(stage: str) -> Stage:
        found = whole(stage)
        trainer = replace(found.trainer, steps=STEPS[stage])
        if stage == "vae":
            return replace(found, task=replace(found.task, batch=4), trainer=trainer)
        # Every phase comes, though for a step only.
        phases = tuple(
            replace(phase, start=i, rows=min(phase.rows, 256))
            for i, phase in enumerate(found.task.phases)
        )
        task = replace(found.task, phases=phases, few=3, scenes=3)
        return replace(found, task=task, trainer=trainer)

    monkeypatch.setattr(recipe, "config", short)
    return recipe


def test_the_recipe_leaves_a_model_that_draws(recipe: ModuleType, tmp_path: Path) -> None:
    for stage in recipe.STAGES:
        recipe.main(stage)
    export = tmp_path / "runs" / "export"
    index = json.loads((export / "model_index.json").read_text())
    assert index["_class_name"] == "PixArtSigmaPipeline"
    assert (tmp_path / "runs" / "denoiser" / "samples.png").is_file()
    weights = load_file(export / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}
    with Engine.load(str(export)) as engine:
        (picture,) = engine.generate("a red circle", size=(64, 96), steps=2, seed=1)
    assert picture.size == (64, 96)
    again = tmp_path / "again"
    recipe.main("export", str(again))
    assert (again / "transformer" / "config.json").is_file()


@pytest.mark.matrix
def test_a_restart_gives_the_same_bytes(recipe: ModuleType, tmp_path: Path) -> None:
    recipe.main("vae")
    recipe.main("denoiser")
    straight = load_file(
        tmp_path / "runs" / "export" / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    (tmp_path / "runs" / "denoiser").rename(tmp_path / "first")
    stage = recipe.config("denoiser")
    halfway = replace(stage.trainer, steps=3)
    trainer = halfway.build(stage.task.build(), stage.directory / "checkpoints")
    for _ in trainer.run():
        pass
    assert trainer.step == 3
    recipe.main("denoiser")
    resumed = load_file(
        tmp_path / "runs" / "export" / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    assert straight.keys() == resumed.keys()
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


def test_half_an_exported_model_is_refused(recipe: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "half" / "vae").mkdir(parents=True)
    with pytest.raises(BadCheckpoint, match="tokenizer: missing"):
        recipe.main("adopt", str(tmp_path / "half"), "4")
    assert not (tmp_path / "runs" / "vae").exists()


@pytest.mark.matrix
def test_training_goes_on_from_an_exported_model(recipe: ModuleType, tmp_path: Path) -> None:
    for stage in recipe.STAGES:
        recipe.main(stage)
    export, runs = tmp_path / "runs" / "export", tmp_path / "runs"
    runs.rename(tmp_path / "elsewhere")
    export = tmp_path / "elsewhere" / "export"
    recipe.main("adopt", str(export), "4")
    assert "step 4" in (runs / "denoiser" / "restarts.txt").read_text()
    assert recipe.export_model(runs / "denoiser", recipe.VAE, tmp_path / "again") == 4
    for part in ("transformer", "vae"):
        first, again = (
            load_file(root / part / "diffusion_pytorch_model.safetensors")
            for root in (export, tmp_path / "again")
        )
        assert all(torch.equal(first[name], again[name]) for name in first)
    with pytest.raises(InvalidInput, match="without checkpoints"):
        recipe.main("adopt", str(export), "4")
    recipe.main("denoiser")
    assert recipe.export_model(runs / "denoiser", recipe.VAE, tmp_path / "last") == 5


def test_sheets_show_every_size_and_every_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import emoji_samples
    import emoji_scenes
    from emoji_exam import Examiner

    few_emoji(tmp_path, monkeypatch)
    monkeypatch.setattr(emoji_scenes, "HELD_OUT_OF_100", 20)
    monkeypatch.setattr(emoji_samples, "SIDES", (64, 80))
    sizes = []

    class Brush:
        """Stands for an engine: grey pictures at once."""

        def generate(
            self, prompts: str | list[str], *, size: tuple[int, int] = (64, 64), seed: int
        ) -> list[Image.Image]:
            sizes.append(size)
            return [
                Image.new("RGB", size, "gray")
                for _ in ([prompts] if isinstance(prompts, str) else prompts)
            ]

    sheet = emoji_samples.size_sheet(Brush(), "a red circle")  # type: ignore[arg-type]
    assert sizes == [(64, 64), (80, 64), (64, 80), (80, 80)]
    assert sheet.size == (8 + 72 + 88,) * 2
    unseen = emoji_samples.unseen_sheet(Brush(), Examiner(tmp_path), columns=2)  # type: ignore[arg-type]
    assert unseen.width == 2 * 64 + 3 * 8
