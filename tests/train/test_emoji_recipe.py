"""The parts of the emoji recipe that need no download."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musiva.core.errors import Unavailable

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(autouse=True)
def _recipes_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECIPES))


def test_fetch_without_npm_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import emoji_data

    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match=r"npm is needed.*Node.js"):
        emoji_data.fetch(emoji_data.PICTURES, tmp_path)


def test_fetch_refuses_other_bytes(tmp_path: Path) -> None:
    import emoji_data

    (tmp_path / emoji_data.LABELS.archive).write_bytes(b"something else")
    with pytest.raises(Unavailable, match=r"is not emojibase-data@17\.0\.0"):
        emoji_data.fetch(emoji_data.LABELS, tmp_path)


def archive(path: Path, files: dict[str, bytes]) -> str:
    import base64
    import hashlib

    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def test_pictures_join_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import emoji_data

    picture = io.BytesIO()
    Image.new("RGBA", (256, 256), (255, 0, 0, 128)).save(picture, "webp", lossless=True)
    names = ("1f44b", "1f44b-1f3fb", "0023-fe0f-20e3", "1f9ff")
    pictures = archive(
        tmp_path / "pictures.tgz",
        {f"package/assets/{name}.webp": picture.getvalue() for name in names},
    )
    skins = [
        {"label": "waving hand: light skin tone", "hexcode": "1F44B-1F3FB", "tone": 1, "group": 1}
    ]
    entries = [
        {"label": "waving hand", "hexcode": "1F44B", "tags": ["hello"], "group": 1, "skins": skins},
        {"label": "keycap: #", "hexcode": "0023-20E3", "group": 8},
    ]
    labels = archive(
        tmp_path / "labels.tgz", {"package/en/data.json": json.dumps(entries).encode()}
    )
    monkeypatch.setattr(
        emoji_data,
        "PICTURES",
        replace(emoji_data.PICTURES, archive="pictures.tgz", integrity=pictures),
    )
    monkeypatch.setattr(
        emoji_data, "LABELS", replace(emoji_data.LABELS, archive="labels.tgz", integrity=labels)
    )

    found = emoji_data.load_emoji(tmp_path)
    assert [(one.name, one.label, one.tone) for one in found] == [
        ("0023-fe0f-20e3", "keycap: #", 0),
        ("1f44b-1f3fb", "waving hand: light skin tone", 1),
        ("1f44b", "waving hand", 0),
    ]
    small = emoji_data.render(found, 16)
    assert small.shape == (3, 16, 16, 4)
    assert small[0, 8, 8].tolist() == [255, 0, 0, 128]  # half see-through red stays red


def test_captions_name_the_ground_and_the_thing() -> None:
    import emoji_captions
    import emoji_data

    fox = emoji_data.Emoji("1f98a", "fox", ("animal", "face"), 0, False, b"")
    rng = np.random.default_rng(0)
    blue = {emoji_captions.caption(fox, emoji_captions.Ground("blue"), rng) for _ in range(300)}
    white = {emoji_captions.caption(fox, emoji_captions.Ground("white"), rng) for _ in range(300)}
    assert all("blue" in text for text in blue)
    assert {"fox", "a fox", "fox emoji", "an emoji of a fox"} <= white
    assert all(
        "fox" in text or {"animal", "face"} <= set(text.split(", "))
        for text in white
        if "white" not in text
    )
    assert len(white) > 15
    apple = replace(fox, label="apple", tags=())
    assert "an apple" in {
        emoji_captions.caption(apple, emoji_captions.Ground("white"), rng) for _ in range(60)
    }


def test_whitening_changes_units_not_pictures() -> None:
    import emoji_vae
    from musiva.models.vae import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(emoji_vae.VAE_CONFIG)
    pixels_BCHW = torch.rand(2, 3, 32, 24) * 2 - 1
    with torch.inference_mode():
        mean_BCHW, logvar_BCHW = vae.encode(pixels_BCHW)
        picture_BCHW = vae.decode(mean_BCHW)
        mean_C, std_C = mean_BCHW.mean((0, 2, 3)), mean_BCHW.std((0, 2, 3))
        emoji_vae.whiten(vae, mean_C, std_C)
        white_BCHW, white_logvar_BCHW = vae.encode(pixels_BCHW)
        again_BCHW = vae.decode(white_BCHW)
    assert torch.allclose(white_BCHW.mean((0, 2, 3)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(white_BCHW.std((0, 2, 3)), torch.ones(8), atol=1e-4)
    assert torch.allclose(again_BCHW, picture_BCHW, atol=1e-4)
    expected_BCHW = logvar_BCHW.exp().sqrt() / std_C[:, None, None]
    assert torch.allclose(white_logvar_BCHW.exp().sqrt(), expected_BCHW, atol=1e-4)
