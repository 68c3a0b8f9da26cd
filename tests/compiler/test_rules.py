"""Rules against experiments on random operands."""

from __future__ import annotations

import pytest
import torch

from musiva.compiler.call import Call, Outcome
from musiva.compiler.labels import Axis, Joint
from musiva.compiler.probe import probe
from musiva.compiler.rules import RULES
from musiva.perf.rule_cases import CASES, base, cases_of, violations

ROWS, COLUMNS = Axis("rows", 3, True), Axis("columns", 5, True)
SEEDS = range(5)


def test_every_rule_has_cases() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_says_what_experiments_show(name: str) -> None:
    found = [violations(case) for seed in SEEDS for case in cases_of(name, seed)]
    assert any(one is not None for one in found), "it refuses all cases"
    assert not [one for one in found if one]


def test_cases_are_the_same_for_a_seed() -> None:
    for one, two in zip(cases_of("einsum", 3), cases_of("einsum", 3), strict=True):
        assert one.args[0] == two.args[0]
        for mine, theirs in zip(one.operands, two.operands, strict=True):
            assert mine.layout == theirs.layout
            assert torch.equal(mine.tensor, theirs.tensor)


@pytest.mark.parametrize(
    "name",
    [
        "cumsum",
        "flip",
        "gather",
        "layer_norm",
        "log_softmax",
        "roll",
        "scaled_dot_product_attention",
        "softmax",
        "sort",
    ],
)
def test_a_rule_that_leaves_all_tokens_where_they_are_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(call: Call) -> Outcome:
        return Outcome((call.layout_of(call.operands[0]),) * len(call.shapes))

    monkeypatch.setattr(base, "RULES", {**RULES, name: wrong})
    assert any(violations(case) for seed in SEEDS for case in cases_of(name, seed))


@pytest.mark.parametrize("name", ["add", "cat", "linear", "matmul", "sum"])
def test_a_rule_that_forgets_tokens_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(call: Call) -> Outcome:
        layout = tuple((Axis("f", n),) if n > 1 else () for n in call.shapes[0])
        return Outcome((layout,))

    monkeypatch.setattr(base, "RULES", {**RULES, name: wrong})
    assert any(violations(case) for seed in SEEDS for case in cases_of(name, seed))


def test_a_probe_tells_where_tokens_lie() -> None:
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    layout = ((ROWS,), (COLUMNS,), (Axis("d", 4),))
    (found,) = probe(lambda t: [t[0].permute(2, 0, 1).reshape(4, 15)], [x], [layout])
    assert found["rows"].places == [(1, 5)]
    assert found["columns"].places == [(1, 1)]
    assert found["rows"].lies(((Axis("d", 4),), (ROWS, COLUMNS)), "rows")
    assert not found["rows"].lies(((Axis("d", 4),), (COLUMNS, ROWS)), "rows")
    (found,) = probe(lambda t: [t[0].softmax(1)], [x], [layout])
    assert found["rows"].places == [(0, 1)]
    assert found["columns"].mixes
    (found,) = probe(lambda t: [torch.zeros_like(t[0])], [x], [layout])
    assert not found["rows"].depends


def test_a_probe_tells_where_tokens_of_a_stream_lie() -> None:
    x = torch.randn(8, 2, dtype=torch.float64)
    joint = Joint(((ROWS,), (COLUMNS,)))
    (found,) = probe(lambda t: [t[0].T], [x], [(joint, (Axis("d", 2),))])
    assert found["rows"].lies(((Axis("d", 2),), joint), "rows")
    assert not found["rows"].lies(((Axis("d", 2),), Joint(((COLUMNS,), (ROWS,)))), "rows")
    (found,) = probe(lambda t: [t[0].roll(1, 0)], [x], [(joint, (Axis("d", 2),))])
    assert not found["rows"].lies((joint, (Axis("d", 2),)), "rows")
