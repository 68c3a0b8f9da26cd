"""Child process: draw the answers to an examiner's questions, and have them marked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from musiva.engine import Engine
from musiva.perf.child import Message, serve_child
from musiva.perf.report import Gate
from musiva.train import load_script

__all__ = ["answer"]

TOGETHER = 8  # pictures asked for at once


def answer(question: Message) -> Message:
    """question: model; exam, data: paths; counts: questions by paper, where not all; seed.

    The gate marks the pictures that were learnt from: an examiner who fails those measures nothing.
    """
    exam = load_script(Path(question["exam"]))
    examiner = exam.Examiner(Path(question["data"]))
    gate, rows = Gate(), []
    with Engine.load(question["model"]) as engine:
        size = engine.pipeline.defaults.size
        for paper, most in exam.PAPERS.items():
            asked = examiner.questions(paper, question["counts"].get(paper, most))
            known = [examiner.mark(one, examiner.solution(one, size)) for one in asked]
            share = _share(known)
            gate.check(f"examiner_knows_{paper}", share, holds=share >= 0.95)
            start = time.perf_counter()
            marks = []
            for first in range(0, len(asked), TOGETHER):
                part = asked[first : first + TOGETHER]
                drawn = engine.generate([one.prompt for one in part], seed=question["seed"])
                marks += [examiner.mark(one, two) for one, two in zip(part, drawn, strict=True)]
            wrong = [one.prompt for one, mark in zip(asked, marks, strict=True) if not all(mark)]
            rows.append(
                {
                    "paper": paper,
                    "questions": len(asked),
                    "asked": sum(map(len, marks)),
                    "right": sum(map(sum, marks)),
                    "share": _share(marks),
                    "size": f"{size[0]}x{size[1]}",
                    "seconds": time.perf_counter() - start,
                    "wrong": wrong,
                }
            )
    return {"gate": gate.as_json(), "rows": rows}


def _share(marks: Iterable[list[bool]]) -> float:
    flat = [right for mark in marks for right in mark]
    return sum(flat) / len(flat)


if __name__ == "__main__":
    serve_child(answer)
