"""`musiva generate` with a model of clips: files that move, and are made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiva.core.clip import Clip
from musiva.core.provenance import read_parameters
from musiva.perf.small_clips import write_clips
from tests.cli.conftest import Musiva

SHORT = ("--size", "32x48", "--steps", 2, "--seed", 7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pipelines") / "wan"
    write_clips("wan", directory)
    return directory


def stacked(file: Path) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in Clip.read(file.read_bytes()).frames])


def test_a_clip_as_a_file_and_again(musiva: Musiva, model: Path, tmp_path: Path) -> None:
    asked = ("generate", "a fox", *SHORT, "--frames", 5, "--fps", 8, "--model", model)
    webp, png = tmp_path / "fox.webp", tmp_path / "fox.png"
    for file in (webp, png):
        result = musiva(*asked, "--out", file, "--device", "cpu")
        assert result.code == 0, result.err
        assert result.out.split() == [str(file)]
    with Image.open(webp) as file:
        assert (file.format, file.size, file.n_frames) == ("WEBP", (32, 48), 5)  # type: ignore[attr-defined]
    assert read_parameters(webp) == read_parameters(png)
    assert (read_parameters(png)["frames"], read_parameters(png)["fps"]) == (5, 8.0)
    again = tmp_path / "again.png"
    result = musiva("generate", "--like", webp, "--model", model, "--out", again)
    assert result.code == 0, result.err
    assert np.array_equal(stacked(again), stacked(png))


def test_clips_and_pictures_in_a_directory(musiva: Musiva, model: Path, tmp_path: Path) -> None:
    asked = ("generate", "a fox", *SHORT, "--model", model, "--out", tmp_path, "--device", "cpu")
    result = musiva(*asked, "--frames", 5, "-n", 2, "--grid")
    assert result.code == 0, result.err
    names = [Path(line).name for line in result.out.split()]
    assert names == ["a-fox-7.webp", "a-fox-8.webp", "a-fox-7-grid.png"]
    result = musiva(*asked, "--frames", 1)
    assert [Path(line).name for line in result.out.split()] == ["a-fox-7.png"]


def test_a_picture_as_webp(musiva: Musiva, tiny_model: Path, tmp_path: Path) -> None:
    file, asked = tmp_path / "fox.webp", ("--size", "32x48", "--steps", 2, "--model", tiny_model)
    result = musiva("generate", "a fox", *asked, "--out", file, "--device", "cpu")
    assert result.code == 0, result.err
    with Image.open(file) as picture:
        assert (picture.format, picture.size) == ("WEBP", (32, 48))
    assert read_parameters(file)["prompt"] == "a fox"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--frames", 6), "frames: got 6; allowed: 1, 5, 9 and so on to 161"),
        (("--frames", 0), "frames: got '0'; allowed: a whole number from 1 to 100000"),
        (("--fps", 0), "fps: got '0'; allowed: a number from 1 to 60"),
        (("--out", "fox.mp4"), "ends in .png or .webp, or a directory"),
    ],
)
def test_what_is_refused(
    musiva: Musiva, model: Path, tmp_path: Path, flags: tuple[object, ...], told: str
) -> None:
    asked = ("generate", "a fox", *SHORT, "--model", model, "--out", tmp_path, "--device", "cpu")
    result = musiva(*asked, *flags)
    assert result.code == 2
    assert told in result.err


def test_a_clip_is_not_inspected(musiva: Musiva, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "fox.webp"
    asked = ("generate", "a fox", *SHORT, "--frames", 5, "--model", model, "--out", file)
    assert musiva(*asked, "--device", "cpu").code == 0
    result = musiva("inspect", file, "--model", model, "--out", tmp_path, "--device", "cpu")
    assert result.code == 2
    assert "a picture; this is a clip" in result.err
