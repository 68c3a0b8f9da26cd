"""A few emoji of our own, packed as the two npm packages are."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import emoji_data

__all__ = ["few_emoji", "put_packages"]

COLOURED = {
    "red": (214, 48, 49),
    "green": (0, 110, 0),
    "blue": (52, 120, 220),
    "orange": (243, 146, 55),
    "black": (20, 20, 20),
    "purple": (132, 84, 196),
}
SHAPES = (
    *(
        (f"1f5{i}{j}", f"{colour} {name}", (*rgb, 255), shape)
        for i, (colour, rgb) in enumerate(COLOURED.items())
        for j, (name, shape) in enumerate((("circle", "ellipse"), ("square", "rectangle")))
    ),
    ("1f44b", "waving hand", (250, 211, 70, 255), "ellipse"),
    ("1f44b-1f3ff", "waving hand: dark skin tone", (90, 60, 40, 255), "ellipse"),
    ("1f1eb-1f1ee", "flag: finland", (200, 210, 250, 255), "rectangle"),
)


def few_emoji(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[emoji_data.Emoji]:
    """Fifteen emoji, one of them with a skin tone and one a flag, fetched from archives in
    `directory`.
    """
    pictures, entries = {}, []
    for name, label, colour, shape in SHAPES:
        picture = Image.new("RGBA", (256, 256))
        draw = ImageDraw.Draw(picture)
        getattr(draw, shape)((24, 24, 232, 232), fill=colour)
        content = io.BytesIO()
        picture.save(content, "webp", lossless=True)
        pictures[f"package/assets/{name}.webp"] = content.getvalue()
        entry = {"label": label, "hexcode": name.upper(), "tags": ["shape", "colour"], "group": 1}
        if "skin tone" in label:
            entries[-1]["skins"] = [{**entry, "tone": 5}]
        else:
            entries.append({**entry, "group": emoji_data.FLAG_GROUP if "flag" in label else 1})
    put_packages(directory, monkeypatch, pictures, entries)
    return emoji_data.load_emoji(directory)


def put_packages(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    pictures: Mapping[str, bytes],
    entries: Sequence[Mapping[str, object]],
) -> None:
    """Archives in `directory` that the recipe takes for its pinned packages."""
    contents = {
        "PICTURES": pictures,
        "LABELS": {"package/en/data.json": json.dumps(list(entries)).encode()},
    }
    for pinned, files in contents.items():
        package = getattr(emoji_data, pinned)
        path = directory / package.archive
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        monkeypatch.setattr(emoji_data, pinned, replace(package, integrity=f"sha512-{digest}"))
