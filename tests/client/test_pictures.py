"""Pictures as files, and made again from their own parameters."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import musiva
from musiva.client import AsyncClient, Client, Picture, Preview
from musiva.core.errors import InvalidInput, Unavailable
from musiva.perf.child import child_environment
from tests.client.conftest import Ask
from tests.client.scripted import png, scripted
from tests.client.test_calls import generated


def picture(content: bytes = png(3)) -> Picture:
    return Picture(content=content, format="png", seed=3)


def test_save_writes_the_file_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "fox.PNG"
    path.write_bytes(b"an older one")
    assert picture().save(path) == path
    assert path.read_bytes() == png(3)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert [p.name for p in tmp_path.iterdir()] == ["fox.PNG"]
    jpeg = Preview(content=b"x", format="jpeg", index=0, number=0, evaluation=1, num_evaluations=2)
    assert jpeg.save(str(tmp_path / "fox.jpg")).read_bytes() == b"x"
    assert picture().save(tmp_path / "no-extension").exists()


def test_save_does_not_write_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"path: got .*fox.jpg.*ends in .png"):
        picture().save(tmp_path / "fox.jpg")
    with pytest.raises(Unavailable, match="could not be written"):
        picture().save(tmp_path / "nowhere" / "fox.png")
    (tmp_path / "directory.png").mkdir()
    with pytest.raises(Unavailable, match="could not be written"):
        picture().save(tmp_path / "directory.png")
    assert [p.name for p in tmp_path.iterdir()] == ["directory.png"]


def test_a_file_that_is_no_picture_is_told_when_it_is_looked_at() -> None:
    for content in (b"nothing", png(3)[:-40]):
        with pytest.raises(Unavailable, match="broken png file"):
            _ = picture(content).image
    with pytest.raises(InvalidInput, match="picture: got"):
        _ = picture(b"nothing").parameters


def test_like_asks_for_the_same_again(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(png(9))
    same = {"prompt": "a fox", "size": "8x8", "seed": 9, "steps": 4}
    same["response_format"] = "b64_json"
    for file in (path, str(path), path.read_bytes()):
        with scripted([generated(9)]) as server:
            asked = ask(server.url, "like", file)
        assert asked.error is None
        assert asked.value[0].content == path.read_bytes()
        assert server.bodies == [same]


def test_like_but_for_what_is_said(ask: Ask) -> None:
    with scripted([generated(9)]) as server:
        overrides = {"prompt": "a hen", "seed": None, "steps": None, "guidance": 3.0}
        assert ask(server.url, "like", png(9), **overrides).error is None
    (body,) = server.bodies
    assert body.pop("seed") != 9
    rest = {"prompt": "a hen", "size": "8x8", "guidance_scale": 3.0}
    assert body == {**rest, "response_format": "b64_json"}


def test_like_of_a_picture_without_parameters(ask: Ask) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    asked = ask("http://127.0.0.1:1", "like", buffer.getvalue())
    asked.failed(InvalidInput, "picture: got", "no parameters")
    asked = ask("http://127.0.0.1:1", "like", "no such file.png")
    asked.failed(InvalidInput, "picture: got 'no such file.png'; allowed: a file that exists")


def test_the_client_is_light() -> None:
    script = "\n".join(
        [
            "import json, sys, time",
            "start = time.perf_counter()",
            "import musiva.client, musiva",
            "seconds = time.perf_counter() - start",
            "with musiva.Client() as one: pass",
            "musiva.AsyncClient",
            "heavy = ('torch', 'numpy', 'PIL', 'fastapi', 'pydantic', 'musiva.engine')",
            "print(json.dumps([seconds, [name for name in heavy if name in sys.modules]]))",
        ]
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=child_environment(1),
        )
        took, loaded = json.loads(done.stdout)
        assert loaded == []
        seconds.append(took)
    # The best of three, for busy machines.
    assert min(seconds) < 0.3


def test_the_package_offers_both_clients() -> None:
    assert musiva.Client is Client
    assert musiva.AsyncClient is AsyncClient
