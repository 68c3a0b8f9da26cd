"""`musiva generate --like`: a picture drawn again from what it carries."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiva.core.provenance import exif, png_info, read_parameters
from tests.cli.conftest import Musiva

ODD = ("--negative", "snow", "--sampler", "heun", "--spacing", "karras", "--shift", 2)
MANY = ("--guidance", 2.5, "--size", "16x24", "--steps", 2, "--seed", 11)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def made(musiva: Musiva, tiny_model: Path, tmp_path: Path) -> Path:
    """The second of two pictures with every parameter set."""
    out = tmp_path / "made"
    machine = ("--model", tiny_model, "--device", "cpu")
    result = musiva("generate", "a fox", "-n", 2, *ODD, *MANY, "--out", out, *machine)
    assert result.code == 0, result.err
    return out / "a-fox-12.png"


def test_the_same_pixels_again_from_every_format(
    musiva: Musiva, tiny_model: Path, made: Path, tmp_path: Path
) -> None:
    known = read_parameters(made)
    for name in ("fox.png", "fox.jpg", "fox.webp"):
        file, again = tmp_path / name, tmp_path / f"again-{name}.png"
        with Image.open(made) as picture:
            if name.endswith("png"):
                picture.save(file, pnginfo=png_info(known))
            else:
                picture.save(file, exif=exif(known), quality=50)
        result = musiva("generate", "--like", file, "--out", again, "--model", tiny_model)
        assert result.code == 0, result.err
        assert np.array_equal(pixels(again), pixels(made))
        assert read_parameters(again) == known


def test_what_is_said_goes_over_what_the_picture_says(
    musiva: Musiva, tiny_model: Path, made: Path, tmp_path: Path
) -> None:
    common = ("generate", "--like", made, "--out", tmp_path, "--model", tiny_model)
    said = {"prompt": "a hen", "steps": 3, "seed": 5, "negative_prompt": "", "guidance_scale": 1.0}
    flags = ("--steps", 3, "--seed", 5, "--negative", "", "--guidance", 1)
    result = musiva(*common, "a hen", *flags)
    assert result.code == 0, result.err
    assert read_parameters(tmp_path / "a-hen-5.png") == read_parameters(made) | said
    result = musiva(*common, "-n", 2)
    assert [Path(line).name for line in result.out.split()] == ["a-fox-12.png", "a-fox-13.png"]


def test_a_model_that_is_not_shipped_has_to_be_given(
    musiva: Musiva, made: Path, tmp_path: Path
) -> None:
    result = musiva("generate", "--like", made, "--out", tmp_path / "out")
    assert result.code == 2
    assert "model: got 'tiny'; allowed: with --like a shipped model, or its " in result.err
    assert not (tmp_path / "out").exists()


def encoded(note: str | None) -> bytes:
    buffer = io.BytesIO()
    info = png_info({})
    info.chunks.clear()
    if note is not None:
        info.add_text("musiva", note)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "a file that exists"),
        (b"no picture", "a whole PNG, JPEG or WebP file"),
        (encoded(None), "this one carries no parameters"),
        (encoded("{not json"), "a picture that Musiva made from one prompt"),
        (encoded(json.dumps({"grid": ["a fox"], "seed": 1})), "made from one prompt"),
        (encoded(json.dumps({"prompt": "a fox", "warp": 9})), "that this version of Musiva knows"),
        (encoded(json.dumps({"prompt": "a fox", "size": "huge"})), 'a size "WIDTHxHEIGHT"'),
        (encoded(json.dumps({"prompt": "a fox", "steps": [4]})), "numbers and texts"),
    ],
)
def test_a_file_that_cannot_be_drawn_again(
    musiva: Musiva, tmp_path: Path, content: bytes | None, told: str
) -> None:
    file = tmp_path / "file.png"
    if content is not None:
        file.write_bytes(content)
    result = musiva("generate", "--like", file, "--out", tmp_path / "out")
    assert result.code == 2
    assert result.err.startswith("musiva: error: like: got ")
    assert told in result.err
    assert not (tmp_path / "out").exists()


def test_values_of_a_picture_are_checked_like_those_of_flags(
    musiva: Musiva, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file.png"
    for known, told in (
        ({"steps": 100_000}, "steps: got 100000"),
        ({"size": "17x16"}, "size: got '17x16'"),
        ({"sampler": "magic"}, "sampler: got 'magic'"),
        ({"quality": "great"}, "quality: got 'great'"),
        ({"guidance_scale": "much"}, "guidance: got 'much'"),
        ({"seed": -1}, "seed: got -1"),
    ):
        file.write_bytes(encoded(json.dumps({"prompt": "a fox", **known})))
        result = musiva("generate", "--like", file, "--model", tiny_model, "--device", "cpu")
        assert result.code == 2
        assert result.err.startswith(f"musiva: error: {told}"), result.err


def test_a_prompt_or_a_picture_is_needed(musiva: Musiva) -> None:
    result = musiva("generate", "--steps", 3)
    assert result.code == 2
    assert "prompt: got ''; allowed: a PROMPT, or several, or --like FILE" in result.err
