"""The error tree is what its page draws, and errors cross process borders."""

from __future__ import annotations

import pickle
import re

import pytest

from musiva.core import errors


def test_the_drawing_is_true() -> None:
    drawn: dict[str, tuple[str, int, int]] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( *)(\w+)(?:\s+.*?(\d{3})\s+exit (\d+))?$", line)
        if match is None or not hasattr(errors, match[2]):
            continue
        depth = len(match[1]) // 2
        parents[depth:] = [match[2]]
        if match[3]:
            drawn[match[2]] = (parents[depth - 1], int(match[3]), int(match[4]))
    classes = {name: getattr(errors, name) for name in errors.__all__}
    del classes["MusivaError"], classes["Answer"]
    assert drawn == {
        name: (cls.__base__.__name__, cls.http_status, cls.exit_code)
        for name, cls in classes.items()
    }


@pytest.mark.parametrize("kind", [errors.InvalidInput, errors.UnknownModel])
def test_invalid_input_says_three_things_and_pickles(kind: type[errors.InvalidInput]) -> None:
    error = pickle.loads(pickle.dumps(kind("steps", 0, "1 to 1000")))
    assert str(error) == "steps: got 0; allowed: 1 to 1000"
    assert (error.field, error.value, error.allowed) == ("steps", 0, "1 to 1000")
    assert type(error) is kind


def test_the_answer_of_a_server_crosses_process_borders() -> None:
    for error in (errors.InvalidInput("steps", 0, "1 to 1000"), errors.Unavailable("no")):
        assert error.answer is None
        error.answer = errors.Answer(status=400, message="no", code="invalid_value", param="steps")
        assert pickle.loads(pickle.dumps(error)).answer == error.answer


def test_long_values_are_cut() -> None:
    message = str(errors.InvalidInput("prompt", "x" * 10_000, "short"))
    assert len(message) < 200
    assert "10002 characters" in message
