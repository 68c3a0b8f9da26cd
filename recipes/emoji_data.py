"""Pictures and captions of the emoji recipes: pinned npm packages, fetched once, checked, unpacked.

Pictures: Microsoft Fluent Emoji 3D (MIT licence), 256 x 256 WebP with alpha, named by code points.
Labels and tags: emojibase-data (MIT licence), English.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from musiva.perf.npm import Package, fetch

__all__ = ["LABELS", "PICTURES", "Emoji", "load_emoji", "pictures_of", "render"]


PICTURES = Package(
    name="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    integrity="sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
)
LABELS = Package(
    name="emojibase-data",
    version="17.0.0",
    integrity="sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)

FLAG_GROUP = 9
# Names that people type, written for this recipe, by code points.
NAMES = Path(__file__).with_name("emoji_names.json")


@dataclass(frozen=True, slots=True)
class Emoji:
    """One picture and what is known about it. name: code points; label: Unicode's; names: others
    that people use; tone: 0 for the base form; webp: the file's bytes.
    """

    name: str
    label: str
    names: tuple[str, ...]
    tags: tuple[str, ...]
    tone: int
    is_flag: bool
    webp: bytes


def load_emoji(directory: Path) -> list[Emoji]:
    """All pictures that have a label, in the order of their file names."""
    labels = _labels(
        json.loads(_members(fetch(LABELS, directory), "package/en/data.json")["data.json"])
    )
    pictures = _members(fetch(PICTURES, directory), "package/assets/")
    names = json.loads(NAMES.read_text(encoding="utf-8"))
    found = []
    for file, webp in sorted(pictures.items()):
        name = file.removesuffix(".webp")
        entry = labels.get(_key(name))
        if entry is not None:
            label, tags, tone, group = entry
            others = tuple(names.get(name, ()))
            found.append(Emoji(name, label, others, tags, tone, group == FLAG_GROUP, webp))
    return found


def pictures_of(emoji: Sequence[Emoji], pixels: int) -> list[Image.Image]:
    """RGBA pictures of `pixels` a side, scaled down (Lanczos, premultiplied alpha)."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda one: _picture_of(one.webp, pixels), emoji))


def render(emoji: Sequence[Emoji], pixels: int) -> np.ndarray:
    """The same as one array `[N, pixels, pixels, 4]` uint8."""
    return np.stack([np.asarray(picture) for picture in pictures_of(emoji, pixels)])


def _picture_of(webp: bytes, pixels: int) -> Image.Image:
    with Image.open(io.BytesIO(webp)) as picture:
        return picture.convert("RGBA").resize((pixels, pixels), Image.Resampling.LANCZOS)


def _labels(entries: list[dict]) -> dict[str, tuple[str, tuple[str, ...], int, int]]:
    labels = {}
    for entry in entries:
        tags, group = tuple(entry.get("tags", ())), entry.get("group", -1)
        labels[_key(entry["hexcode"])] = (entry["label"], tags, 0, group)
        for skin in entry.get("skins", ()):
            tone = skin["tone"] if isinstance(skin["tone"], int) else skin["tone"][0]
            labels[_key(skin["hexcode"])] = (skin["label"], tags, tone, group)
    return labels


def _key(code_points: str) -> str:
    # The two packages disagree on where the invisible "show as a picture" mark is written.
    return "-".join(part for part in code_points.lower().split("-") if part != "fe0f")


def _members(archive: Path, prefix: str) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        files = [m for m in tar.getmembers() if m.isfile() and m.name.startswith(prefix)]
        return {Path(m.name).name: tar.extractfile(m).read() for m in files}  # type: ignore[union-attr]
