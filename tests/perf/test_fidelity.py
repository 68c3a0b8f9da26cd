"""The bench `fidelity`, with an examiner of two questions and a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from musiva.core.errors import Unavailable
from musiva.perf.benches import examination, fidelity
from musiva.perf.child import Message
from tests.tiny import tiny_pixart_directory

EXAM = """
from PIL import Image

PAPERS = {"singles": 3, "scenes": 2}


class Question:
    def __init__(self, prompt):
        self.prompt = prompt


class Examiner:
    def __init__(self, data):
        self.data = data

    def questions(self, paper, count):
        return [Question(f"{paper} {i}") for i in range(count)]

    def solution(self, question, size):
        return Image.new("RGB", size, "red")

    def mark(self, question, picture):
        known = picture.getpixel((0, 0)) == (255, 0, 0)
        right = known if KNOWS else False
        return [right, question.prompt.endswith("0") or known and KNOWS]
"""


def examine(tmp_path: Path, *, knows: bool) -> Message:
    exam = tmp_path / "exam.py"
    exam.write_text(f"KNOWS = {knows}\n{EXAM}")
    model = tmp_path / "model"
    tiny_pixart_directory(model)
    counts = {"singles": 2}
    return examination.answer(
        {"model": str(model), "exam": str(exam), "data": "", "counts": counts, "seed": 0}
    )


def test_answers_are_drawn_and_marked(tmp_path: Path) -> None:
    found = examine(tmp_path, knows=True)
    assert found["gate"]["ok"] is True
    singles, scenes = found["rows"]
    assert (singles["paper"], singles["questions"], singles["asked"]) == ("singles", 2, 4)
    assert (singles["right"], singles["share"]) == (1, 0.25)
    assert singles["wrong"] == ["singles 0", "singles 1"]
    assert scenes["questions"] == 2


def test_an_examiner_who_fails_the_right_answers_closes_the_gate(tmp_path: Path) -> None:
    assert examine(tmp_path, knows=False)["gate"]["ok"] is False


def test_figures_come_from_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = {"singles": (130, 200), "scenes": (100, 250), "pairs": (30, 120), "tones": (50, 60)}
    rows = [
        {"paper": paper, "right": right, "asked": asked, "share": right / asked}
        for paper, (right, asked) in marks.items()
    ]
    answers = {
        "musiva.perf.benches.examination": {"gate": {"ok": True}, "rows": rows},
        "musiva.perf.benches.pictures": {"gate": {"ok": True}, "convergence_db": 36.5, "rows": []},
    }
    monkeypatch.setattr(fidelity, "run_child", lambda module, question, threads: answers[module])
    figures = fidelity.measure(quick=True).figures
    assert figures == {
        "prompt_fidelity": 0.65,
        "scene_fidelity": 0.4,
        "held_out_pairs": 0.25,
        "held_out_tones": pytest.approx(50 / 60),
        "held_out_fidelity": pytest.approx(80 / 180),
        "dense_convergence_db": 36.5,
    }
    assert set(figures) == set(fidelity.KEYS)


def test_without_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "checkout", lambda: None)
    with pytest.raises(Unavailable, match="checkout"):
        fidelity.measure(quick=True)
