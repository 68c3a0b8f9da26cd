"""`musiva calibrate`, and what it makes possible, with a model of a few thousand weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiva.perf.calibration import fit, table
from tests.cli.conftest import Musiva
from tests.fixtures import CALIBRATION_PROMPTS

TINY = ("--size", "32x24", "--device", "cpu")


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "tiny"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n\n".join(CALIBRATION_PROMPTS) + "\n", encoding="utf-8")
    return path


@pytest.mark.matrix
def test_a_calibrated_model_draws_at_a_lower_quality(
    musiva: Musiva, model: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "RUNS_PER_ROUND", 4)
    monkeypatch.setattr(table, "TOLERANCES", (0.1, 0.3))
    steps = ("--steps", 12, "--steps", 6)
    done = musiva("calibrate", "--model", model, "--prompts", prompts, *steps, *TINY)
    assert done.code == 0, done.err
    folder = Path(done.out.strip())
    assert folder == model / "calibration"
    assert "dense runs: 8 of 8" in done.err
    record = json.loads((folder / "calibration.json").read_text())
    assert [(row["steps"], row["tolerance"]) for row in record["table"]] == [
        (12, 0.1),
        (12, 0.3),
        (6, 0.1),
        (6, 0.3),
    ]
    assert record["conditions"]["size"] == [32, 24]
    assert record["table"][0]["psnr"] > record["table"][1]["psnr"]
    # Once more, with the prompts that it kept, to elsewhere: the same.
    again = musiva("calibrate", "--model", model, *steps, "--out", tmp_path, *TINY)
    assert again.code == 0, again.err
    repeated = json.loads((tmp_path / "calibration" / "calibration.json").read_text())
    assert repeated["table"] == record["table"]
    assert repeated["surprise"] == pytest.approx(record["surprise"], rel=1e-6)

    options = ("--model", model, "--steps", 12, "--seed", 1, *TINY)
    pictures = []
    for name, more in (("dense", ()), ("near", ("--quality", 1))):
        made = musiva("generate", "a fox", *options, *more, "--out", tmp_path / f"{name}.png")
        assert made.code == 0, made.err
        pictures.append(Image.open(made.out.strip()))
    known = json.loads(pictures[1].info["musiva"])
    assert (known["quality"], known["policy"]) == (1, None)
    same = musiva(
        "generate", "--like", tmp_path / "near.png", "--model", model, "--out", tmp_path / "2.png"
    )
    assert same.code == 0, same.err
    near, once_more = (np.asarray(p) for p in (pictures[1], Image.open(tmp_path / "2.png")))
    assert np.array_equal(near, once_more)
    assert not np.array_equal(near, np.asarray(pictures[0]))


@pytest.mark.parametrize("lines", [None, 7, "bytes"])
def test_prompts_that_do_not_do(
    musiva: Musiva, model: Path, tmp_path: Path, lines: int | str | None
) -> None:
    file = tmp_path / "prompts.txt"
    if lines == "bytes":
        file.write_bytes(b"\xff\xfe\x00")
    elif isinstance(lines, int):
        file.write_text("a fox\n" * lines, encoding="utf-8")
    given = () if lines is None else ("--prompts", file)
    done = musiva("calibrate", "--model", model, *given, *TINY)
    assert done.code == 2
    assert "prompts" in done.err
    assert not (model / "calibration").exists()


def test_a_model_without_calibration_is_told_of(
    musiva: Musiva, model: Path, tmp_path: Path
) -> None:
    for flags, field in ((("--quality", 80), "quality"), (("--policy", "adaptive"), "policy")):
        done = musiva("generate", "a fox", "--model", model, *flags, "--out", tmp_path, *TINY)
        assert done.code == 2
        assert f"{field}: got" in done.err
        assert "musiva calibrate" in done.err
    assert not list(tmp_path.glob("*.png"))
