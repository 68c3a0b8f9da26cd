"""`musiva inspect` with a real model of a few thousand weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiva.core.provenance import exif, png_info, read_parameters
from tests.cli.conftest import Musiva

OWN = """
from dataclasses import dataclass
from musiva.core.types import COMPUTE, Action

@dataclass(frozen=True)
class Restless:
    most: int = 2
    probes = ()
    keep = 2

    def begin(self, trip):
        return None

    def observe(self, trip, memory, evaluation, action, measured):
        return None

    def act(self, trip, memory, evaluation):
        due = evaluation < 2 or evaluation % self.most == 0
        return COMPUTE if due else Action(compute=False)
"""


@pytest.fixture
def generated(musiva: Musiva, tiny_model: Path, tmp_path: Path):
    """A picture at a policy."""

    def make(policy: str, model: Path = tiny_model) -> Path:
        out = tmp_path / "fox.png"
        flags = ("--policy", policy, "--size", "48x32", "--steps", 6, "--seed", 3, "--force")
        done = musiva("generate", "a fox", *flags, "--model", model, "--out", out)
        assert done.code == 0, done.err
        return out

    return make


def test_a_picture_with_tiles(musiva: Musiva, tiny_model: Path, tmp_path: Path, generated) -> None:
    picture = generated("ras:warmup=2,share=0.5,interval=9,max_age=9")
    out = tmp_path / "out"
    done = musiva("inspect", picture, "--out", out, "--model", tiny_model)
    assert done.code == 0, done.err
    names = [out / "fox.inspect.png", out / "fox.inspect.json"]
    assert [Path(line) for line in done.out.split()] == names
    assert "WARNING" not in done.err
    told = json.loads(names[1].read_text())
    assert told["parameters"] == read_parameters(picture)
    assert told["policy"] == told["parameters"]["policy"]
    assert told["file_psnr"] == 100
    # 2 x 3 tiles of 16 x 16 pixels; three of six at four evaluations.
    assert (told["tiles"], told["block"]) == ([2, 3], [16, 16])
    assert (told["num_evaluations"], told["computed"]) == (6, 2)
    assert (told["cost"], told["share"]) == (4.0, 0.6667)
    each = [evaluation["states"].count("computed") for evaluation in told["evaluations"]]
    assert each == [6, 6, 3, 3, 3, 3]
    counts = np.array([e["states"] for e in told["evaluations"]]) == "computed"
    assert told["tile_counts"] == counts.sum(axis=0).tolist()
    assert [e["cost"] for e in told["evaluations"]] == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    assert [e["latent_psnr"] for e in told["evaluations"]][:2] == [100.0, 100.0]
    assert max(e["latent_psnr"] for e in told["evaluations"][2:]) < 100
    assert min(e["store_bytes"] for e in told["evaluations"]) > 0
    assert np.array(told["block_psnr"]).shape == (2, 3)
    with Image.open(names[0]) as chart:
        assert chart.size[0] == 1400
    # Once more, over what is there.
    assert musiva("inspect", picture, "--out", out, "--model", tiny_model).code == 0
    assert json.loads(names[1].read_text()) == told


def test_a_jpeg_of_the_dense_run(
    musiva: Musiva, tiny_model: Path, tmp_path: Path, generated
) -> None:
    picture, file = generated("never"), tmp_path / "fox.jpg"
    with Image.open(picture) as image:
        image.save(file, exif=exif(read_parameters(picture)), quality=50)
    done = musiva("inspect", file, "--out", tmp_path, "--model", tiny_model)
    assert done.code == 0, done.err
    assert "WARNING" not in done.err
    told = json.loads((tmp_path / "fox.inspect.json").read_text())
    assert (told["psnr"], told["share"], told["tiles"]) == (100, 1, None)
    assert 20 < told["file_psnr"] < 60
    assert {tuple(e["states"]) for e in told["evaluations"]} == {("computed",)}


def test_a_png_with_other_pixels_is_told_of(
    musiva: Musiva, tiny_model: Path, tmp_path: Path, generated
) -> None:
    picture = generated("interval")
    with Image.open(picture) as image:
        image.putpixel((3, 4), (1, 2, 3))
        image.save(picture, pnginfo=png_info(read_parameters(picture)))
    done = musiva("inspect", picture, "--out", tmp_path, "--model", tiny_model)
    assert done.code == 0
    assert "fox.png has other pixels than what its parameters give here" in done.err
    assert json.loads((tmp_path / "fox.inspect.json").read_text())["file_psnr"] < 100


def test_a_policy_of_ones_own_has_to_be_given(
    musiva: Musiva, tiny_model: Path, tmp_path: Path, generated
) -> None:
    own = tmp_path / "restless.py"
    own.write_text(OWN)
    picture = generated(f"{own}:Restless:most=3")
    common = ("inspect", picture, "--out", tmp_path / "out", "--model", tiny_model)
    for policy, told in (
        ((), "policy: got 'restless:most=3'; allowed: with --policy FILE.py:CLASS, the class"),
        (("--policy", f"{own}:Other"), "a class with"),
        (("--policy", f"{tmp_path}/gone.py:Restless"), "FILE.py:CLASS, a file that is there"),
    ):
        done = musiva(*common, *policy)
        assert done.code == 2
        assert told in done.err
    done = musiva(*common, "--policy", f"{own}:Restless")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "out" / "fox.inspect.json").read_text())
    states = [e["states"][0][0] for e in told["evaluations"]]
    assert "".join(states) == "ccfcff"
    other = musiva("inspect", generated("ras"), "--policy", f"{own}:Restless")
    assert other.code == 2
    assert "the class that the picture was made with, which is called 'ras'" in other.err


def test_pictures_that_cannot_be_inspected(
    musiva: Musiva, tiny_model: Path, tmp_path: Path, generated
) -> None:
    picture = generated("never")
    plain, other = tmp_path / "plain.png", tmp_path / "other"
    Image.new("RGB", (8, 8)).save(plain)
    shutil.copytree(tiny_model, other)
    for arguments, told in (
        ((tmp_path / "none.png",), "PICTURE: got "),
        ((plain,), "this one carries no parameters"),
        ((picture,), "model: got 'tiny'; allowed: a shipped model, or the directory of the"),
        ((picture, "--model", other), "model: got 'other'; allowed: 'tiny', which the picture"),
        ((picture, "--model", tiny_model, "--out", plain), "out: got "),
    ):
        done = musiva("inspect", *arguments)
        assert done.code == 2, arguments
        assert told in done.err
    assert not list(tmp_path.rglob("*.inspect.*"))
