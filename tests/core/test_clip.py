"""Clips as files that move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiva.core.clip import Clip, ClipFormat, shown
from musiva.core.errors import InvalidInput, Unavailable
from musiva.core.provenance import read_parameters

PARAMETERS = {"prompt": "eine Füchsin 🦊", "frames": 7, "fps": 16.0}


def moving(count: int = 7, fps: float = 16.0) -> Clip:
    """A bar that goes down."""
    pixels = np.zeros((count, 16, 24, 3), np.uint8)
    for i in range(count):
        pixels[i, 2 * i % 16 : 2 * i % 16 + 3] = (250, 20 * i % 256, 40)
    return Clip.of(pixels, fps)


def stacked(clip: Clip) -> np.ndarray:
    return np.stack([np.asarray(frame).astype(int) for frame in clip.frames])


@pytest.mark.parametrize(("file_format", "most"), [("png", 0), ("webp", 40), ("gif", 8)])
def test_what_is_written_is_read_again(file_format: ClipFormat, most: int) -> None:
    clip = moving()
    again = Clip.read(clip.content(file_format))
    assert len(again.frames) == 7
    assert np.abs(stacked(again) - stacked(clip)).mean() <= most / 8
    assert np.abs(stacked(again) - stacked(clip)).max() <= (0 if not most else 255)
    assert again.fps == pytest.approx(16.0, rel=0.05 if file_format == "gif" else 0.01)


@pytest.mark.parametrize("file_format", ["png", "webp"])
def test_files_carry_what_made_them(file_format: ClipFormat) -> None:
    content = moving().content(file_format, parameters=PARAMETERS)
    assert read_parameters(content) == PARAMETERS
    still = moving(1).content(file_format, parameters=PARAMETERS)
    assert read_parameters(still) == PARAMETERS


def test_a_name_says_the_format(tmp_path: Path) -> None:
    for name, kind in (("a.webp", "WEBP"), ("a.png", "PNG"), ("a.GIF", "GIF")):
        with Image.open(moving().save(tmp_path / name)) as file:
            assert (file.format, getattr(file, "n_frames", 1)) == (kind, 7)
    with pytest.raises(InvalidInput, match=r"path: .*a name that ends in .webp, .png, .apng, .gif"):
        moving().save(tmp_path / "a.mp4")


def test_durations_add_up() -> None:
    assert sum(moving(48, 48.0)._durations(1)) == 1000
    assert sum(moving(30, 24.0)._durations(10)) == 1250
    assert set(moving(48, 48.0)._durations(1)) == {20, 21}


def test_what_is_no_clip() -> None:
    with pytest.raises(Unavailable, match="cannot be decoded"):
        Clip.read(b"no clip")


def test_pixels_are_pictures_or_clips() -> None:
    picture, clip = (
        shown(np.zeros((4, 6, 3), np.uint8), 8.0),
        shown(np.zeros((2, 4, 6, 3), np.uint8), 8.0),
    )
    assert isinstance(picture, Image.Image)
    assert isinstance(clip, Clip)
    assert (picture.size, clip.frames[1].size, clip.fps) == ((6, 4), (6, 4), 8.0)
