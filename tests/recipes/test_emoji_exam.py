"""The examiner marks what was asked for right, and anything else wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from emoji_exam import PAPERS, Examiner
from emoji_grounds import Ground
from emoji_scenes import LAYOUTS
from tests.recipes.fakes import few_emoji


@pytest.fixture
def examiner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examiner:
    import emoji_exam
    import emoji_scenes

    few_emoji(tmp_path, monkeypatch)
    # Fifteen emoji are few for one in twenty.
    monkeypatch.setattr(emoji_scenes, "HELD_OUT_OF_100", 20)
    monkeypatch.setitem(emoji_exam.PAPERS, "singles", 5)
    return Examiner(tmp_path)


@pytest.mark.parametrize("paper", ["singles", "scenes", "pairs"])
@pytest.mark.parametrize("size", [(128, 128), (128, 96)])
def test_right_answers_are_right_and_others_wrong(
    examiner: Examiner, paper: str, size: tuple[int, int]
) -> None:
    asked = examiner.questions(paper, 5)
    assert asked == examiner.questions(paper, 5)
    # So plain shapes get lost in a ground of stripes or in one of their own colour.
    stone = Ground("stone")
    asked = [replace(one, scene=replace(one.scene, ground=stone)) for one in asked]
    for i, question in enumerate(asked):
        answer = examiner.solution(question, size)
        assert answer.size == size
        assert all(examiner.mark(question, answer)), question
        assert all(examiner.mark(question, answer.filter(ImageFilter.GaussianBlur(2))))
        if paper == "singles":
            assert examiner.mark(question, examiner.solution(asked[i - 1], size)) == [False]
        mirrored = answer.transpose(Image.Transpose.ROTATE_180)
        if len(question.scene.placed) == 2:
            assert not any(examiner.mark(question, mirrored)), question


def test_one_wrong_emoji_of_two_is_one_wrong_mark(examiner: Examiner) -> None:
    question = next(q for q in examiner.questions("scenes", 10) if len(q.scene.placed) == 2)
    answer = examiner.solution(question, (96, 96))
    left = answer.crop((0, 32, 32, 64))
    answer.paste(left, (64, 32))
    assert examiner.mark(question, answer) == [True, False]


def test_two_may_fill_their_halves_and_three_may_not(examiner: Examiner) -> None:
    """Training shows two things left and right in thirds and in halves, under the same words."""
    two, three = (
        next(q for q in examiner.questions("scenes", 10) if len(q.scene.placed) == n)
        for n in (2, 3)
    )
    halves = [
        replace(one, slot=slot)
        for one, slot in zip(two.scene.placed, LAYOUTS["beside"], strict=True)
    ]
    answer = examiner.solution(
        replace(two, scene=replace(two.scene, placed=tuple(halves))), (128, 128)
    )
    assert examiner.mark(two, answer) == [True, True]
    swapped = [
        replace(one, slot=other.slot) for one, other in zip(halves, halves[::-1], strict=True)
    ]
    answer = examiner.solution(
        replace(two, scene=replace(two.scene, placed=tuple(swapped))), (128, 128)
    )
    assert examiner.mark(two, answer) == [False, False]
    large = [
        replace(one, slot=slot)
        for one, slot in zip(three.scene.placed, LAYOUTS["beside"], strict=False)
    ]
    answer = examiner.solution(
        replace(three, scene=replace(three.scene, placed=tuple(large))), (128, 128)
    )
    assert not all(examiner.mark(three, answer))


def test_prompts_say_the_scene(examiner: Examiner) -> None:
    for question in examiner.questions("scenes", 8):
        for one in question.scene.placed:
            label = examiner.emoji[one.emoji].label
            assert f"{label} {one.slot.place}" in question.prompt


def test_papers_of_the_real_set_are_distinct_questions() -> None:
    assert list(PAPERS) == ["singles", "scenes", "pairs", "tones"]
    assert all(count >= 60 for count in PAPERS.values())
    assert np.isclose(PAPERS["singles"], 200)
