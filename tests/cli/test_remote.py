"""`musiva generate --server`: pictures that a server draws."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musiva.cli.pictures import Destination
from musiva.cli.results import Results
from musiva.core.errors import Unavailable
from musiva.engine import Engine
from musiva.perf.child import child_environment
from musiva.telemetry import Metrics
from tests.cli.conftest import Musiva
from tests.client.scripted import STREAM, answer, completed, event, png, progress, scripted
from tests.fixtures import hears_interrupts
from tests.server.live import live_server


def test_the_files_are_those_that_the_server_sent(musiva: Musiva, tmp_path: Path) -> None:
    script = [STREAM, progress(1), progress(4), completed(0, 7), completed(1, 8)]
    with scripted(script) as server:
        arguments = ("--server", server.url, "--seed", 7, "-n", 2, "--size", "8x8", "--grid")
        result = musiva("generate", "a fox", *arguments, "--model", "tiny", "--out", tmp_path)
    assert result.code == 0, result.err
    names = ["a-fox-7.png", "a-fox-8.png", "a-fox-7-grid.png"]
    assert result.out.split() == [str(tmp_path / name) for name in names]
    assert (tmp_path / "a-fox-8.png").read_bytes() == png(8)
    assert server.bodies == [
        {
            "prompt": "a fox",
            "seed": 7,
            "size": "8x8",
            "n": 2,
            "model": "tiny",
            "stream": True,
            "partial_images": 0,
            "progress": True,
        }
    ]


def test_warnings_of_the_server_are_told_once(musiva: Musiva, tmp_path: Path) -> None:
    said = {"warnings": ["negative_prompt: has no effect", "style: none"]}
    script = [STREAM, completed(0, 7, **said), completed(1, 8, **said)]
    with scripted(script) as server:
        arguments = ("--server", server.url, "-n", 2, "--out", tmp_path)
        result = musiva("generate", "a fox", *arguments)
    assert result.code == 0
    assert result.err.splitlines() == [
        "musiva: WARNING: negative: has no effect",
        "musiva: WARNING: style: none",
    ]


def test_a_server_tells_how_much_was_computed(musiva: Musiva, tmp_path: Path) -> None:
    script = [STREAM, completed(0, 7, share=0.25, cost=1.0) + completed(1, 8, share=0.5, cost=2.0)]
    with scripted(script) as server:
        arguments = ("--server", server.url, "-n", 2, "--quality", 70, "--out", tmp_path)
        result = musiva("generate", "a fox", *arguments)
    assert result.code == 0
    assert result.err == "2 pictures at quality 70: 38 % of the dense run computed\n"


def test_like_with_a_server(musiva: Musiva, tmp_path: Path) -> None:
    file = tmp_path / "fox.png"
    file.write_bytes(png(9))
    with scripted([STREAM, completed(0, 9)]) as server:
        out = tmp_path / "out.png"
        result = musiva("generate", "--like", file, "--server", server.url, "--out", out)
    assert result.code == 0, result.err
    asked = {name: server.bodies[0][name] for name in ("prompt", "size", "seed", "steps")}
    assert asked == {"prompt": "a fox", "size": "8x8", "seed": 9, "steps": 4}
    assert out.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        (
            [
                answer(
                    {
                        "error": {
                            "message": "n: got 9; allowed: a whole number from 1 to 8",
                            "type": "invalid_request_error",
                            "param": "n",
                            "code": "invalid_value",
                        }
                    },
                    "400 Bad Request",
                )
            ],
            2,
            "n: got 9; allowed: a whole number from 1 to 8",
        ),
        (
            [STREAM, progress(3), event("error", error={"message": "NaN", "code": "non_finite"})],
            1,
            "NaN",
        ),
        ([STREAM, progress(3)], 3, "the stream ended after evaluation 3 of 4 of picture 0"),
        ([answer({"error": {"message": "Not Found"}}, "404 Not Found")], 2, "server: got"),
        ([STREAM, completed().replace(b"iVBO", b"AAAA")], 3, "broken png file"),
    ],
)
def test_failures_end_with_the_code_of_their_kind(
    musiva: Musiva, tmp_path: Path, script: list[bytes], code: int, told: str
) -> None:
    with scripted(script) as server:
        arguments = ("--server", server.url, "-n", 9, "--out", tmp_path)
        result = musiva("generate", "a fox", *arguments)
    assert result.code == code, result.err
    assert result.err.startswith("musiva: error: ")
    assert told in result.err
    assert not list(tmp_path.iterdir())


def test_a_prompt_that_fails_does_not_take_the_others_with_it(
    musiva: Musiva, tmp_path: Path
) -> None:
    broken = event("error", error={"message": "NaN", "code": "non_finite"})
    scripts = [[STREAM, completed(0, 1)], [STREAM, broken], [STREAM, completed(0, 1)]]
    with scripted(*scripts) as server:
        result = musiva("generate", "fox", "hen", "owl", "--server", server.url, "--out", tmp_path)
    assert result.code == 1
    assert result.err.endswith("NaN\n")
    assert len(list(tmp_path.iterdir())) == 2
    assert {body["prompt"] for body in server.bodies} == {"fox", "hen", "owl"}
    assert len({body["seed"] for body in server.bodies}) == 1


def test_every_kind_of_failure_is_told(musiva: Musiva, tmp_path: Path) -> None:
    def broken(message: str) -> list[bytes]:
        return [STREAM, event("error", error={"message": message, "code": "non_finite"})]

    with scripted(broken("NaN"), broken("NaN"), broken("no memory")) as server:
        result = musiva("generate", "fox", "hen", "owl", "--server", server.url, "--out", tmp_path)
    assert result.code == 1
    assert result.err.count("NaN") == result.err.count("no memory") == 1
    assert "musiva: ERROR: prompt '" in result.err


def test_progress_may_come_in_leaps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results = Results(["a fox"], 2, Destination(tmp_path, count=2, force=False))
    with results:
        for index, evaluation in ((0, 1), (0, 4), (1, 2), (0, 4), (1, 1), (1, 4)):
            results.advance(0, index, evaluation, 4)
        assert (results.progress.done, results.progress.total) == (8, 8)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--server", "localhost:8400"], 2, "server: got 'localhost:8400'; allowed: an address"),
        (["--server", "http://h", "--dtype", "bfloat16"], 2, "dtype: got 'bfloat16'; allowed: no"),
        (["--server", "http://h", "--device", "cpu"], 2, "device: got 'cpu'; allowed: nothing"),
        (["--server", "http://h", "--threads", "2"], 2, "threads: got 2; allowed: nothing"),
    ],
)
def test_what_makes_no_sense_with_a_server(
    musiva: Musiva, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    result = musiva("generate", "a fox", *arguments, "--out", tmp_path)
    assert result.code == code
    assert result.err.startswith(f"musiva: error: {told}"), result.err


def test_a_picture_that_cannot_be_written_ends_it_at_once(
    musiva: Musiva, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Unavailable("no space left")

    monkeypatch.setattr(Destination, "write", full)
    with scripted([STREAM, completed(0), 20.0]) as server:
        result = musiva("generate", "a fox", "-n", 2, "--server", server.url, "--out", tmp_path)
        assert server.left.wait(5)
    assert result.code == 3
    assert result.err == "musiva: error: no space left\n"


def test_ctrl_c_cancels_on_the_server_and_torch_is_not_loaded(tmp_path: Path) -> None:
    with scripted([STREAM, progress(1), completed(0), progress(1, index=1), 20.0]) as server:
        command = [sys.executable, "-X", "importtime", "-m", "musiva.cli", "generate", "a fox"]
        command += ["-n", "2", "--server", server.url, "--out", str(tmp_path)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(1) | {"PYTHONUNBUFFERED": "1"},
            preexec_fn=hears_interrupts,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == f"{tmp_path / 'a-fox-7.png'}\n"
        start = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=10)
        assert server.left.wait(5)
    assert process.returncode == 130
    assert time.monotonic() - start < 5
    imported = {line.split("|")[-1].strip() for line in told.splitlines() if "|" in line}
    assert "musiva.client.async_client" in imported
    assert not {"torch", "numpy", "fastapi", "musiva.engine"} & imported
    assert told.endswith("musiva: interrupted\n")
    assert [p.name for p in tmp_path.iterdir()] == ["a-fox-7.png"]


def test_a_server_gives_the_same_files_as_this_machine(
    musiva: Musiva, tiny_engine: Engine, tiny_model: Path, tmp_path: Path
) -> None:
    here, there, again = tmp_path / "here", tmp_path / "there", tmp_path / "again.png"
    arguments = ("generate", "a fox", "a hen", "-n", 2, "--seed", 3, "--steps", 2, "--grid")
    local = musiva(*arguments, "--out", here, "--model", tiny_model, "--device", "cpu")
    assert local.code == 0, local.err
    with live_server(tiny_engine, Metrics()) as (host, port):
        url = f"http://{host}:{port}"
        remote = musiva(*arguments, "--out", there, "--server", url)
        assert remote.code == 0, remote.err
        liked = musiva("generate", "--like", there / "a-hen-4.png", "--server", url, "--out", again)
        assert liked.code == 0, liked.err
    names = sorted(path.name for path in here.iterdir())
    assert len(names) == 5
    assert names == sorted(path.name for path in there.iterdir())
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes()
    assert again.read_bytes() == (here / "a-hen-4.png").read_bytes()
