"""`musiva capture`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from musiva.perf.catalog import ENTRIES, build
from tests.cli.conftest import Musiva


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a pipeline, with a config and no weights."""
    path = tmp_path_factory.mktemp("model")
    (entry,) = (one for one in ENTRIES if one.name == "SD3Transformer2DModel")
    build(entry).save_config(path / "transformer")
    return path


def test_it_tells_what_runs_in_packs_and_tiles(musiva: Musiva, directory: Path) -> None:
    shown = musiva("capture", str(directory), "--explain").out
    assert "SD3Transformer2DModel" in shown
    assert "2 x 2 positions" in shown
    assert "transformer_blocks.0.attn: attention, image and text" in shown


def test_as_json_it_has_every_segment(musiva: Musiva, directory: Path) -> None:
    found = json.loads(musiva("capture", str(directory), "--json").out)
    sites = [one["site"] for one in found["segments"]]
    assert sites == ["", *(f"transformer_blocks.{i}" for i in range(3)), ""]
    assert all(one["linear_flops"]["image"] > 0 for one in found["segments"])


def test_the_program_itself_is_python(musiva: Musiva, directory: Path) -> None:
    text = musiva("capture", str(directory), "--text").out
    compile(text, "program", "exec")
    assert "def transformer_blocks_0(" in text


def test_what_is_no_model_is_refused(musiva: Musiva, tmp_path: Path) -> None:
    done = musiva("capture", str(tmp_path))
    assert done.code == 2
    assert "config.json" in done.err


def test_what_cannot_be_captured_would_be_a_black_box(musiva: Musiva, tmp_path: Path) -> None:
    (entry,) = (one for one in ENTRIES if one.name == "HiDreamImageTransformer2DModel")
    build(entry).save_config(tmp_path)
    done = musiva("capture", str(tmp_path))
    assert done.code == 2
    assert "torch.export" in done.err
    assert "would run as a black box" in done.err


def test_models_tells_what_can_be_done_with_a_pipeline(musiva: Musiva, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    said = {}
    for name in ("SD3Transformer2DModel", "HiDreamImageTransformer2DModel"):
        (entry,) = (one for one in ENTRIES if one.name == name)
        build(entry).save_config(tmp_path / "transformer")
        (said[name],) = json.loads(musiva("models", str(tmp_path), "--json").out)
    captured, called = said.values()
    assert captured["supported"] == called["supported"] == "yes"
    assert captured["reach"] == "packs, tiles, gates, evaluations"
    assert "black box" not in captured
    assert called["reach"] == "evaluations; batches on a GPU"
    assert "torch.export" in called["black box"]


def test_it_is_captured_once(musiva: Musiva, directory: Path) -> None:
    musiva("capture", str(directory))
    again = musiva("capture", str(directory)).out
    assert "captured     before, kept in " in again
    assert json.loads(musiva("capture", str(directory), "--json").out)["from_cache"] is True
    assert "captured     now, kept in " in musiva("capture", str(directory), "--fresh").out
