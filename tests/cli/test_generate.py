"""`musiva generate` with a real model of a few thousand weights."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiva.cli import generate
from musiva.cli.pictures import Destination, grid_of, stem_of
from musiva.core.errors import Unavailable
from musiva.engine import Engine
from musiva.perf.child import child_environment
from tests.cli.conftest import Musiva
from tests.fixtures import hears_interrupts

TINY = ("--size", "16x24", "--steps", "2", "--device", "cpu")


def test_all_prompts_may_wait_at_once(musiva: Musiva, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(arguments: object, env: object, config: Engine.Config) -> Engine:
        raise Unavailable(f"room for {config.max_waiting}")

    monkeypatch.setattr(generate, "load_engine", load)
    prompts = [f"fox {i}" for i in range(600)]
    assert musiva("generate", *prompts).err.endswith("room for 600\n")


def note(path: Path) -> dict[str, object]:
    with Image.open(path) as picture:
        return json.loads(picture.info["musiva"])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_pictures_grid_and_notes(musiva: Musiva, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "pictures"
    arguments = ("generate", "a red fox", "Blue, whale!", "-n", 2, "--seed", 7, "--guidance", 2.5)
    result = musiva(*arguments, "--grid", "--out", out, "--model", tiny_model, *TINY)
    assert result.code == 0, result.err
    names = [f"{prompt}-{seed}.png" for prompt in ("a-red-fox", "blue-whale") for seed in (7, 8)]
    assert sorted(p.name for p in out.iterdir()) == sorted([*names, "a-red-fox-7-grid.png"])
    assert sorted(result.out.split()) == sorted(str(p) for p in out.iterdir())
    assert pixels(out / names[0]).shape == (24, 16, 3)
    grid = pixels(out / "a-red-fox-7-grid.png")
    assert grid.shape == (24 * 2 + 4, 16 * 2 + 4, 3)
    assert np.array_equal(grid[28:, 20:], pixels(out / "blue-whale-8.png"))
    assert note(out / "blue-whale-8.png") == {
        "model": "tiny",
        "prompt": "Blue, whale!",
        "negative_prompt": "",
        "size": "16x24",
        "steps": 2,
        "seed": 8,
        "guidance_scale": 2.5,
        "quality": 100,
        "sampler": "dpm++2m",
        "spacing": None,
        "shift": None,
        "policy": "never",
    }


def test_nothing_is_replaced_unless_forced(
    musiva: Musiva, tiny_model: Path, tmp_path: Path
) -> None:
    common = ("generate", "fox", "--seed", 1, "--model", tiny_model, *TINY)
    for name in ("fox-1.png", "fox-1-2.png", "fox-1-3.png"):
        assert musiva(*common, "--out", tmp_path).out.split() == [str(tmp_path / name)]
    target = tmp_path / "one.png"
    target.write_bytes(b"mine")
    refused = musiva(*common, "--out", target)
    assert refused.code == 2
    assert "out: got" in refused.err
    assert "--force" in refused.err
    assert target.read_bytes() == b"mine"
    assert musiva(*common, "--out", target, "--force").code == 0
    assert pixels(target).shape == (24, 16, 3)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "b", "--out", "x.png"], "a directory, for 2 pictures"),
        (["a", "-n2", "--out", "x.png"], "a directory, for 2 pictures"),
        (["a", "--grid", "--out", "x.png"], "--grid"),
        (["a", "--out", "x.jpg"], "ends in .png"),
        (["a", "--out", "file/below"], "can be written"),
        (["a", "--out", "/proc/nowhere"], "can be written"),
        (["a", "--out", "file/below/x.png"], "can be written"),
    ],
)
def test_a_destination_that_cannot_be_is_told_before_the_work(
    musiva: Musiva,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(generate, "load_engine", lambda *_: pytest.fail("it began to work"))
    result = musiva("generate", *arguments)
    assert result.code == 2
    assert "musiva: error: out: got " in result.err
    assert told in result.err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["  "], "prompt: got '  '; allowed: a text that is not empty"),
        (["word " * 500], "prompt: got"),
        (["fox", "--size", "20x16"], "size: got '20x16'; allowed: width x height, each a multiple"),
        (["fox", "--size", "9000"], "size: got '9000x9000'"),
        (["fox", "-n", "99"], "n: got 99; allowed: a whole number from 1 to 8"),
        (["fox", "--negative", "no " * 500], "negative: got"),
        (["fox", "--sampler", "magic"], "sampler: got 'magic'; allowed: euler, heun, dpm++2m"),
        (["fox", "--spacing", "magic"], "spacing: got 'magic'; allowed: "),
        (["fox", "--dtype", "int4"], "dtype: got 'int4'; allowed: float32, bfloat16"),
        (["fox", "--device", "abacus"], "device: got 'abacus'; allowed: auto, cpu"),
        (["fox", "ok", ""], "prompt: got ''"),
    ],
)
def test_bad_values_end_with_2_and_leave_nothing(
    musiva: Musiva, tiny_model: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    out = tmp_path / "out"
    result = musiva("generate", *arguments, "--model", tiny_model, "--out", out)
    assert result.code == 2
    assert result.err.startswith(f"musiva: error: {told}"), result.err
    assert not out.exists()


def test_what_has_no_effect_is_told_once_and_as_it_was_typed(
    musiva: Musiva, tiny_model: Path, tmp_path: Path
) -> None:
    arguments = ("fox", "hen", "--negative", "rain", "--model", tiny_model, *TINY)
    told = musiva("generate", *arguments, "--guidance", 1, "--out", tmp_path)
    assert told.code == 0, told.err
    assert told.err.count("musiva: WARNING: negative: has no effect without guidance") == 1
    assert "has no effect" not in musiva("generate", *arguments, "--out", tmp_path).err


def test_models_that_cannot_be_used(musiva: Musiva, tiny_model: Path, tmp_path: Path) -> None:
    unknown = musiva("generate", "fox", "--model", "nosuch", "--out", tmp_path)
    assert unknown.code == 2
    assert "model: got 'nosuch'; allowed: a shipped model" in unknown.err
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = broken / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    cut = musiva("generate", "fox", "--model", broken, "--out", tmp_path)
    assert cut.code == 2
    assert str(weights) in cut.err
    assert "Traceback" not in cut.err


def test_an_interruption_keeps_whole_pictures_only(
    musiva: Musiva, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Destination.write, []

    def interrupted(*arguments: object) -> Path:
        if written:
            raise KeyboardInterrupt
        written.append(write(*arguments))  # pyright: ignore[reportArgumentType]
        return written[0]

    monkeypatch.setattr(Destination, "write", interrupted)
    result = musiva("generate", "fox", "-n", 3, "--out", tmp_path, "--model", tiny_model, *TINY)
    assert result.code == 130
    assert result.err.endswith("musiva: interrupted\n")
    assert list(tmp_path.iterdir()) == written
    assert pixels(written[0]).shape == (24, 16, 3)


def test_ctrl_c_ends_the_process_with_130(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "musiva.cli", "generate", "fox", "-n", "8"]
    command += ["--steps", "1000", "--size", "128x128", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--model", str(tiny_model), "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(1),
        preexec_fn=hears_interrupts,
    )
    assert process.stderr is not None
    for line in process.stderr:  # the last thing it imports is what it makes pictures with
        if "musiva.engine.engine" in line:
            break
    time.sleep(3.0)  # what torch imports at first use takes a second, more on a busy machine
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    told = process.stderr.read()
    assert process.wait(10) == 130, told
    assert time.monotonic() - start < 5
    assert "musiva: interrupted" in told
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())
    process.stderr.close()


def test_a_full_disk_is_told(
    musiva: Musiva, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = musiva("generate", "fox", "--out", tmp_path, "--model", tiny_model, *TINY)
    assert result.code == 3
    assert "No space left on device" in result.err
    assert not list(tmp_path.iterdir())


def test_file_names() -> None:
    assert stem_of("A red fox, at sunset!", 3) == "a-red-fox-at-sunset-3"
    assert stem_of("../../etc/passwd", 0) == "etc-passwd-0"
    assert stem_of("狐狸", 5) == "狐狸-5"
    assert stem_of("🦊", 5) == "picture-5"
    assert len(stem_of("ü" * 500, 1).encode()) < 80


def test_the_grid_may_end_with_a_shorter_row() -> None:
    red, blue = Image.new("RGB", (4, 2), "red"), Image.new("RGB", (4, 2), "blue")
    grid = np.asarray(grid_of([[red, blue], [blue]]))
    assert grid.shape == (2 * 2 + 4, 2 * 4 + 4, 3)
    assert grid[0, 0].tolist() == [255, 0, 0]
    assert grid[-1, 0].tolist() == [0, 0, 255]
    assert grid[-1, -1].tolist() == [255, 255, 255]


def test_a_policy_of_ones_own(musiva: Musiva, tiny_model: Path, tmp_path: Path) -> None:
    """It skips evaluations and is written into the picture; an interval of one skips nothing."""
    file = tmp_path / "half.py"
    file.write_text(
        "from musiva.core.types import Action\n"
        "from musiva.policy import Never\n"
        "class Half(Never):\n"
        "    keep = 1\n"
        "    def act(self, trip, memory, evaluation):\n"
        "        return Action(evaluation % 2 == 0, 0)\n"
    )
    options = ("--model", str(tiny_model), *TINY, "--steps", "6", "--seed", "1")
    drawn = {}
    for name, policy in (("a", "never"), ("b", "interval:interval=1"), ("c", f"{file}:Half")):
        out = tmp_path / f"{name}.png"
        ran = musiva("generate", "a fox", *options, "--policy", policy, "--out", str(out))
        assert ran.code == 0, ran.err
        with Image.open(out) as picture:
            drawn[name] = picture.tobytes()
    assert drawn["a"] == drawn["b"] != drawn["c"]
    assert note(tmp_path / "c.png")["policy"] == "half"
    wrong = musiva("generate", "a fox", *options, "--policy", "half")
    assert wrong.code == 2
    assert "policy: got 'half'; allowed: never, interval" in wrong.err


def test_how_much_was_computed_is_summed_up(
    musiva: Musiva, calibrated_model: Path, tmp_path: Path
) -> None:
    flags = ("--steps", 20, "--seed", 1, "--size", "48x32", "--model", calibrated_model)
    common = ("generate", "a red fox", "-n", 2, *flags, "--device", "cpu", "--out", tmp_path)
    policy = "interval:interval=4,warmup=4"
    for more, told in (
        (("--policy", policy), f"2 pictures with policy {policy}: 40 % of the dense run computed"),
        (("--quality", 1), "2 pictures at quality 1: "),
        ((), ""),
        (("--policy", "never"), ""),
    ):
        done = musiva(*common, *more)
        assert done.code == 0, done.err
        (line,) = done.err.splitlines()[-1:] or [""]
        assert line.startswith(told)
        assert ("of the dense run computed" in line) == bool(told)
        assert len(done.out.split()) == 2
