"""Fetching, checking and joining the emoji and their labels, on archives made here."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.recipes.fakes import put_packages


def test_pictures_join_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import emoji_data

    picture = io.BytesIO()
    Image.new("RGBA", (256, 256), (255, 0, 0, 128)).save(picture, "webp", lossless=True)
    names = ("1f44b", "1f44b-1f3fb", "0023-fe0f-20e3", "1f9ff")
    pictures = {f"package/assets/{name}.webp": picture.getvalue() for name in names}
    skins = [
        {"label": "waving hand: light skin tone", "hexcode": "1F44B-1F3FB", "tone": 1, "group": 1}
    ]
    entries = [
        {"label": "waving hand", "hexcode": "1F44B", "tags": ["hello"], "group": 1, "skins": skins},
        {"label": "keycap: #", "hexcode": "0023-20E3", "group": 8},
    ]
    put_packages(tmp_path, monkeypatch, pictures, entries)

    found = emoji_data.load_emoji(tmp_path)
    assert [(one.name, one.label, one.tone) for one in found] == [
        ("0023-fe0f-20e3", "keycap: #", 0),
        ("1f44b-1f3fb", "waving hand: light skin tone", 1),
        ("1f44b", "waving hand", 0),
    ]
    assert "hash key" in found[0].names
    small = emoji_data.render(found, 16)
    assert small.shape == (3, 16, 16, 4)
    assert small[0, 8, 8].tolist() == [255, 0, 0, 128]  # half see-through red stays red
