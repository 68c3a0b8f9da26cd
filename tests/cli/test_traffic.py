"""`musiva profile`, `trace`, `simulate` and `replay`, with a model of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Musiva

ASKED = ("--rate", 20, "--count", 30, "--deadline", 2)
SHAPE = ("--size", "32x32", "--size", "48x32", "--steps", 6)


@pytest.fixture
def trace(musiva: Musiva, tmp_path: Path) -> Path:
    path, prompts = tmp_path / "trace.jsonl", tmp_path / "prompts.txt"
    prompts.write_text("a red fox\n\na blue whale\n")
    done = musiva("trace", "poisson", "--out", path, "--prompts", prompts, *ASKED, *SHAPE)
    assert done.code == 0, done.err
    assert "30 requests" in done.out
    return path


@pytest.fixture
def profile(musiva: Musiva, calibrated_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "profile.json"
    done = musiva(
        "profile", "--model", calibrated_model, "--device", "cpu", "--seconds", 1.5, "--out", path
    )
    assert done.code == 0, done.err
    assert "predicted against measured" in done.out
    assert str(path) in done.out
    return path


def test_the_same_arguments_give_the_same_trace(
    musiva: Musiva, trace: Path, tmp_path: Path
) -> None:
    again = ("--out", tmp_path / "again.jsonl", "--prompts", tmp_path / "prompts.txt")
    musiva("trace", "poisson", *again, *ASKED, *SHAPE)
    assert (tmp_path / "again.jsonl").read_text() == trace.read_text()
    assert {json.loads(line)["size"] for line in trace.read_text().splitlines()} == {
        "32x32",
        "48x32",
    }


def test_a_trace_is_simulated(
    musiva: Musiva, trace: Path, profile: Path, calibrated_model: Path, tmp_path: Path
) -> None:
    done = musiva(
        *("simulate", trace, "--model", calibrated_model, "--device", "cpu"),
        *("--profile", profile, "--scheduler", "goodput", "--scheduler", "fifo"),
        *("--speed", 1, "--speed", 50, "--json", tmp_path / "rows.json"),
        *("--chart", tmp_path / "chart.svg"),
    )
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["scheduler"], row["speed"]) for row in rows] == [
        ("goodput", 1.0),
        ("goodput", 50.0),
        ("fifo", 1.0),
        ("fifo", 50.0),
    ]
    assert all(0.0 <= row["attainment"] <= 1.0 for row in rows)
    assert (tmp_path / "chart.svg").read_text().startswith("<svg")


def test_a_trace_is_simulated_on_workers(
    musiva: Musiva, trace: Path, profile: Path, calibrated_model: Path, tmp_path: Path
) -> None:
    done = musiva(
        *("simulate", trace, "--model", calibrated_model, "--device", "cpu"),
        *("--profile", profile, "--speed", 2000, "--workers", 1, "--workers", 8),
        *("--json", tmp_path / "rows.json", "--chart", tmp_path / "chart.svg"),
    )
    assert done.code == 0, done.err
    few, many = json.loads((tmp_path / "rows.json").read_text())
    assert (few["workers"], many["workers"]) == (1, 8)
    assert many["latency_p95"] < few["latency_p95"]
    assert "goodput, 8 workers" in (tmp_path / "chart.svg").read_text()
    done = musiva("simulate", trace, "--cores", 2)
    assert (done.code, "cores: got 2" in done.err) == (2, True)


def test_what_is_missing_is_told(musiva: Musiva, trace: Path, tmp_path: Path) -> None:
    done = musiva("simulate", tmp_path / "none.jsonl")
    assert (done.code, "trace: got" in done.err) == (2, True)
    done = musiva("simulate", trace, "--profile", tmp_path / "none.json")
    assert (done.code, "profile: got" in done.err) == (2, True)
    done = musiva("trace", "flat", "--out", tmp_path / "x.jsonl")
    assert (done.code, "shape: got 'flat'" in done.err) == (2, True)
    done = musiva("trace", "poisson", "--out", tmp_path / "x.jsonl", "--prompts", tmp_path / "no")
    assert (done.code, "prompts: got" in done.err) == (2, True)


def test_a_server_that_is_not_there_fails_every_request(
    musiva: Musiva, trace: Path, tmp_path: Path
) -> None:
    done = musiva(
        "replay", trace, "--server", "http://127.0.0.1:9", "--speed", 100, "--json", tmp_path / "r"
    )
    assert done.code == 1
    assert "30 x" in done.err
    assert json.loads((tmp_path / "r").read_text())["failed"] == 30
