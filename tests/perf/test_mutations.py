"""Wrong rules and rewrites are made, seen to change something, and noticed."""

from __future__ import annotations

import random

import pytest

from musiva.compiler.rules import RULES
from musiva.perf.mutations import REWRITES, mutants
from tests.trials import trial_of

TEXTS = {
    "swapped axes": ("x.permute((0, 2, 1))", "x.permute((0, 1, 2))"),
    "swapped places": (
        "at.places(run, 'p', ('image',), (('rows',), ('columns', 2)))",
        "at.places(run, 'p', ('image',), (('columns',), ('rows', 2)))",
    ),
    "off by one": ("qkv[1].reshape((-1, 4))", "qkv[0].reshape((-1, 4))"),
    "other streams": ("at.part(x, ('image', 'text'), 0, 1)", "at.part(x, ('text', 'image'), 0, 1)"),
    "wrong broadcast": (
        "at.gather(scale, ('image',))",
        "at.gather(scale[:1].expand_as(scale), ('image',))",
    ),
    "lost activation": ("at.linear(run, 'a', x, 'silu')", "at.linear(run, 'a', x)"),
    "wrong sign": ("a + b", "a - b"),
}


def test_rewrites_are_what_they_say() -> None:
    for kind, (right, wrong) in TEXTS.items():
        assert REWRITES[kind](right, random.Random(0)) == wrong
        assert REWRITES[kind]("y.exp()", random.Random(0)) == "y.exp()"


@pytest.mark.matrix
def test_mutants_are_noticed_and_rules_are_put_back() -> None:
    before = dict(RULES)
    name = "SD3Transformer2DModel"
    found = list(mutants({name: trial_of(name)}, 1))
    assert before == RULES
    assert [one.model for one in found] == [name]
    assert all(one.killed for one in found)
