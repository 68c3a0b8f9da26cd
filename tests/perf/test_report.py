"""Reports, gates, and parts of benches in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from musiva.core.errors import ExecutionFailed, Unavailable
from musiva.perf.child import child_environment, run_child
from musiva.perf.report import Gate, Report, append_result, environment

CHILD = """
import os, sys
from musiva.perf.child import serve_child
def answer(question):
    if "raise" in question:
        raise ValueError(question["raise"])
    if "import" in question:
        __import__(question["import"])
    print("noise")
    return {"twice": 2 * question["number"], "threads": os.environ["OMP_NUM_THREADS"]}
serve_child(answer)
"""


def report(gate: Gate) -> Report:
    facts = {"commit": None, "versions": {}, "device": "x", "threads": 2}
    return Report("toy", False, 0.1, gate, {"a": 1.0, "b": None}, [{"what": "row"}], facts)


def test_a_gate_that_fails_hides_every_figure() -> None:
    gate = Gate()
    assert gate.check("equal", 0.0, holds=True)
    told = report(gate).as_json()
    assert told["figures"] == {"a": 1.0, "b": None}
    assert told["rows"] == [{"what": "row"}]
    assert not gate.merge({"ok": False, "error": 3.0})
    assert gate.merge({"ok": True, "other": 1})
    told = report(gate).as_json()
    assert told["gate"] == {"ok": False, "equal": 0.0, "error": 3.0, "other": 1}
    assert told["figures"] == {"a": None, "b": None}
    assert told["rows"] == []


def test_results_are_appended_as_lines(tmp_path: Path) -> None:
    told = report(Gate()).as_json()
    path = append_result(told, tmp_path / "results")
    assert append_result(told, tmp_path / "results") == path == tmp_path / "results" / "toy.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == [told, told]


def test_the_environment_names_what_was_measured_on() -> None:
    facts = environment()
    assert facts["threads"] >= 1  # type: ignore[operator]
    assert "cores" in str(facts["device"])
    versions = facts["versions"]
    assert isinstance(versions, dict)
    assert versions["torch"]
    commit = facts["commit"]
    assert commit is None or (isinstance(commit, str) and len(commit) == 40)


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "toy_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "toy_child"


def test_a_child_answers_with_its_own_threads(child: str) -> None:
    assert run_child(child, {"number": 21}, threads=3) == {"twice": 42, "threads": "3"}


def test_a_child_that_fails_is_told_with_its_last_words(child: str) -> None:
    with pytest.raises(ExecutionFailed, match="ValueError: no way"):
        run_child(child, {"raise": "no way"}, threads=1)
    with pytest.raises(Unavailable, match=r"No module named 'nosuch'; install musiva\[diffusers\]"):
        run_child(child, {"import": "nosuch"}, threads=1)
    with pytest.raises(ExecutionFailed, match="no answer within 0 s"):
        run_child(child, {"number": 1}, threads=1, timeout=0.01)


def test_the_environment_of_a_child_is_offline_and_finds_this_package() -> None:
    found = child_environment(2)
    assert found["HF_HUB_OFFLINE"] == "1"
    assert Path(found["PYTHONPATH"].split(":")[0], "musiva").is_dir()
