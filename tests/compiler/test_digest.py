"""Digests of values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from musiva.compiler import digest

DIFFERENT = (
    None,
    0,
    False,
    0.0,
    "0",
    b"0",
    (),
    [],
    {},
    set(),
    [0],
    (0,),
    [[0]],
    [0, 0],
    ["", "ab"],
    ["a", "b"],
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    {"a", "b"},
    torch.zeros(()),
    torch.zeros(1),
    torch.zeros(0),
    torch.zeros(1, 1),
    torch.zeros(1, dtype=torch.int32),
    torch.zeros(1, dtype=torch.bfloat16),
    torch.zeros(1, dtype=torch.complex64),
    torch.ones(1, dtype=torch.bool),
    torch.tensor([1.0, 2.0]),
    torch.tensor([2.0, 1.0]),
    torch.zeros(1, device="meta"),
    torch.float32,
    torch.device("cpu"),
)


def test_values_that_differ_have_other_digests() -> None:
    found = [digest(value) for value in DIFFERENT]
    for (a, first), (b, second) in itertools.combinations(enumerate(found), 2):
        assert first != second, (DIFFERENT[a], DIFFERENT[b])


def test_the_same_values_have_the_same_digest() -> None:
    x = torch.arange(12.0).view(3, 4)
    assert digest(x.T) == digest(x.T.contiguous())
    assert digest({"b", "a", "c"}) == digest(frozenset({"c", "b", "a"}))
    # Known from outside: it must not change from process to process.
    assert digest([1, "a"]) == digest([1, "a"])
    assert len(digest(None)) == 64


@pytest.mark.parametrize("value", [object(), np.zeros(2), len])
def test_what_has_no_digest_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        digest({"a": [value]})
