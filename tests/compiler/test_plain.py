"""Dataclasses as JSON, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from musiva.compiler.plain import plain, typed
from musiva.compiler.program import Op, Program, Recipe


@dataclass(frozen=True, slots=True)
class Inner:
    dims: tuple[tuple[str | int, ...], ...]
    word: str | None = None


@dataclass(frozen=True, slots=True)
class Outer:
    inner: dict[str, Inner]
    pair: tuple[int, bool]
    names: frozenset[str]
    literals: tuple[tuple[str, bool | float | str], ...]
    anything: dict[str, object] = field(default_factory=dict)


OUTER = Outer(
    inner={"a": Inner((("rows", 2), ())), "b": Inner((), "word")},
    pair=(3, True),
    names=frozenset({"y", "x"}),
    literals=(("scale", 0.1), ("flag", False), ("mode", "none"), ("whole", 2.0), ("inf", -1e999)),
    anything={"stride": [1, 2], "padding": "same"},
)


def again(value: object) -> object:
    return json.loads(json.dumps(value))


def test_what_was_written_is_read() -> None:
    found = typed(Outer, again(plain(OUTER)))
    assert found == OUTER
    # 2.0 == 2, and True == 1.
    assert [type(value) for _, value in found.literals] == [float, bool, str, float, float]
    assert [type(value) for value in found.pair] == [int, bool]
    assert again(plain(OUTER))["names"] == ["x", "y"]  # pyright: ignore


def test_a_program_is_read_as_it_was_written() -> None:
    program = Program(
        ops=[Op("add", "x + y", "add", ("x", "y"), ("image",), "blocks.0", detail="attention")],
        constants={"p_b", "p_a"},
        inputs={"hidden_states": ("hidden_states", ("image",), Recipe((("rows",), (4,))))},
        outputs=[("add", (), Recipe(()))],
        convolutions={"conv": {"stride": [1, 1], "padding": "same", "groups": 2}},
        extras={"registers": "4"},
        copies={"image~": "image"},
        features={"add": (4, 2)},
        layers={"proj": ("p_w", None), "conv": ("p_a", "p_b")},
    )
    assert typed(Program, again(plain(program))) == program
    left = plain(program, without=("ops",))
    assert typed(Program, again(left), ops=program.ops) == program


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("pair",), [3]),
        (("pair",), [3, 1]),
        (("pair",), [True, True]),
        (("names",), "xy"),
        (("inner", "a", "dims"), [[None]]),
        (("inner", "a"), {"dims": []}),
        (("inner", "a"), []),
        (("literals",), [["scale", None]]),
        (("more",), 1),
    ],
)
def test_what_is_of_another_type_is_refused(path: tuple[str, ...], wrong: object) -> None:
    table = again(plain(OUTER))
    inner = table
    for name in path[:-1]:
        inner = inner[name]  # pyright: ignore
    inner[path[-1]] = wrong  # pyright: ignore
    with pytest.raises(ValueError, match=r"and not|is no"):
        typed(Outer, table)


@pytest.mark.parametrize("value", [object(), {1: 2}, 1j])
def test_what_has_no_plain_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        plain([value])
