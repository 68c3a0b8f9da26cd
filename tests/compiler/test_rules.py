"""Rules against experiments on random operands."""

from __future__ import annotations

import pytest
import torch

from musiva.compiler import rules
from musiva.compiler.call import Call, Outcome
from musiva.compiler.labels import Axis
from musiva.compiler.probe import probe
from musiva.perf.rule_cases import CASES, cases_of, violations

ROWS, COLUMNS = Axis("rows", 3, True), Axis("columns", 5, True)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_says_what_experiments_show(name: str) -> None:
    found = [violations(case) for seed in range(4) for case in cases_of(name, seed)]
    assert any(one is not None for one in found), "it refuses all cases"
    assert not [one for one in found if one]


def test_a_rule_that_hides_that_tokens_mix_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(call: Call) -> Outcome:
        return Outcome((call.layout("query"),), "attend")

    changed = {**rules.RULES, "scaled_dot_product_attention": wrong}
    monkeypatch.setattr("musiva.perf.rule_cases.RULES", changed)
    found = [violations(case) for case in cases_of("scaled_dot_product_attention", 0)]
    assert all(found)


def test_a_probe_tells_where_tokens_lie() -> None:
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    layout = ((ROWS,), (COLUMNS,), (Axis("d", 4),))
    (found,) = probe(lambda t: [t[0].permute(2, 0, 1).reshape(4, 15)], [x], [layout])
    assert found["rows"].place == (1, 5)
    assert found["columns"].place == (1, 1)
    (found,) = probe(lambda t: [t[0].softmax(1)], [x], [layout])
    assert found["rows"].place == (0, 1)
    assert found["columns"].mixes
    (found,) = probe(lambda t: [torch.zeros_like(t[0])], [x], [layout])
    assert not found["rows"].depends
