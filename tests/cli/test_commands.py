"""The commands around generating: models, doctor, train, bench."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest

from musiva.perf.benches import Findings
from musiva.perf.benches import base as benches
from musiva.perf.report import Gate
from tests.cli.conftest import Musiva


def test_models_looks_into_a_pipeline(musiva: Musiva, tiny_model: Path) -> None:
    result = musiva("models", tiny_model, "--json")
    assert result.code == 0, result.err
    (found,) = json.loads(result.out)
    assert found["name"] == "tiny"
    assert found["family"] == "PixArtSigmaPipeline"
    assert found["supported"] == "yes"
    assert (found["size"], found["steps"]) == ("32x32", 4)
    assert found["sides"] == "16 to 128, multiples of 8"
    parts = found["components"]
    assert parts["transformer"]["class"] == "PixArtTransformer2DModel"
    assert parts["text_encoder"]["dtypes"] == ["F32"]
    assert found["parameters"] == sum(part.get("parameters", 0) for part in parts.values()) > 1000
    shown = musiva("models", tiny_model).out
    assert "PixArtSigmaPipeline" in shown
    assert "multiples of 8" in shown


def test_models_tells_why_a_pipeline_does_not_run(
    musiva: Musiva, tiny_model: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "other")
    config = other / "transformer" / "config.json"
    config.write_text(config.read_text().replace("PixArtTransformer2DModel", "FancyModel"))
    (found,) = json.loads(musiva("models", other, "--json").out)
    assert found["supported"].startswith("no: ")
    assert "FancyModel" in found["supported"]


def test_models_of_one_component_and_of_nothing(
    musiva: Musiva, tiny_model: Path, tmp_path: Path
) -> None:
    (found,) = json.loads(musiva("models", tiny_model / "vae", "--json").out)
    assert found["family"] == "AutoencoderKL"
    result = musiva("models", tmp_path)
    assert result.code == 2
    assert result.err.startswith(f"musiva: error: DIR: got {str(tmp_path)!r}; allowed: ")


def test_the_list_of_shipped_models_is_a_list(musiva: Musiva) -> None:
    from musiva.engine import shipped_models

    found = json.loads(musiva("models", "--json").out)
    assert [Path(model["path"]).name for model in found] == list(shipped_models())


def test_doctor(musiva: Musiva, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIVA_CACHE_DIR", str(tmp_path / "cache"))
    result = musiva("doctor", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["cache"] == {"path": str(tmp_path / "cache"), "writable": True}
    assert found["packages"]["diffusers"]
    linear = found["linear layers"]["float32"]
    assert linear["kernel"] in linear["GFLOP/s"]
    assert min(linear["GFLOP/s"].values()) > 0
    monkeypatch.setenv("MUSIVA_CACHE_DIR", "/proc/nowhere")
    shown = musiva("doctor").out
    assert "writable             no" in shown
    assert "vector instructions" in shown


RECIPE = """
from pathlib import Path
from beside import say
STAGES = ("one", "two")
def main(stage, *arguments):
    say(stage, *arguments)
"""
BESIDE = """
def say(*words):
    print("ran", *words)
"""


def test_train_runs_the_stages_of_a_recipe(
    musiva: Musiva, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("beside", "toy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "toy.py").write_text(RECIPE)
    (tmp_path / "recipes" / "beside.py").write_text(BESIDE)
    assert musiva("train", "toy").out == "ran one\nran two\n"
    assert musiva("train", "recipes/toy.py", "two", "x").out == "ran two x\n"
    unknown = musiva("train", "nothing")
    assert unknown.code == 2
    assert (
        "RECIPE: got 'nothing'; allowed: a path to a .py file, or one of beside, toy" in unknown.err
    )
    lacking = musiva("train", "beside")
    assert lacking.code == 2
    assert "lacks STAGES and main" in lacking.err


class Toy:
    """A bench whose gate holds or does not."""

    KEYS = ("speed", "size")

    def __init__(self, ok: bool) -> None:
        self.ok = ok

    def measure(self, *, quick: bool) -> Findings:
        gate = Gate()
        gate.check("toy", 1, holds=self.ok)
        return Findings(gate, {"speed": 2.5}, [{"what": "row"}])


@pytest.fixture
def toy_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "import_module", lambda name: Toy(ok=name == "good"))
    monkeypatch.setattr(benches, "BENCHES", {"good": "good", "bad": "bad"})
    monkeypatch.setattr(benches, "check_load", lambda quick: 0.25)


@pytest.mark.usefixtures("toy_bench")
def test_bench_prints_and_writes_its_figures(musiva: Musiva, tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.json"
    result = musiva("bench", "good", "--quick", "--json", path)
    assert result.code == 0, result.err
    assert [line.split() for line in result.out.splitlines()] == [["speed", "2.5"], ["size", "-"]]
    written = json.loads(path.read_text())
    assert written["figures"] == {"speed": 2.5, "size": None}
    assert written["gate"] == {"ok": True, "toy": 1}
    assert {"bench", "commit", "versions", "device", "threads", "rows"} <= written.keys()
    assert (written["quick"], written["load"]) == (True, 0.25)


@pytest.mark.usefixtures("toy_bench")
def test_bench_tells_no_figure_when_its_gate_fails(musiva: Musiva, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    result = musiva("bench", "bad", "--quick", "--json", path)
    assert result.code == 1
    assert "2.5" not in result.out
    assert json.loads(path.read_text())["figures"] == {"speed": None, "size": None}


@pytest.mark.usefixtures("toy_bench")
def test_a_long_run_is_kept(
    musiva: Musiva, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musiva.perf.report.checkout", lambda: tmp_path)
    assert musiva("bench", "good").code == 0
    assert musiva("bench", "good").code == 0
    lines = (tmp_path / "docs" / "results" / "good.jsonl").read_text().splitlines()
    assert [json.loads(line)["figures"]["speed"] for line in lines] == [2.5, 2.5]
    over = musiva("bench", "good", "--json", tmp_path / "docs" / "results" / "good.jsonl")
    assert (over.code, "rows of long runs are appended" in over.err) == (2, True)
    assert (tmp_path / "docs" / "results" / "good.jsonl").read_text().splitlines() == lines


def test_bench_refuses_what_it_cannot_do(musiva: Musiva, tmp_path: Path) -> None:
    unknown = musiva("bench", "nothing", "--quick")
    assert unknown.code == 2
    assert f"NAME: got 'nothing'; allowed: {', '.join(sorted(benches.BENCHES))}" in unknown.err
    assert {"fidelity", "generate", "parity", "server", "suite"} <= benches.BENCHES.keys()
    (tmp_path / "file").touch()
    unwritable = musiva("bench", "parity", "--json", tmp_path / "file" / "x.json")
    assert unwritable.code == 2
    assert "json: got" in unwritable.err


def test_serve_tells_of_a_port_in_use_before_it_loads(musiva: Musiva) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = musiva("serve", "--port", taken.getsockname()[1], "--model", "nosuch")
    assert result.code == 3
    assert "the port is in use" in result.err
