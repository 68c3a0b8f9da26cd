"""Rules of the compiler against experiments: each rule on random operands, whose tokens are changed
one by one (`musiva.compiler.probe`), at two sizes, so that it is known what depends on them.

Where tokens lie where an operator sums, cuts or sorts, a rule may refuse, and may not accept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from musiva.perf.rule_cases import attention, joins, pointwise, products, reductions, views
from musiva.perf.rule_cases.base import Case, Operand, violations
from musiva.perf.rule_cases.draw import Draw

__all__ = ["CASES", "Case", "Operand", "cases_of", "violations"]

CASES: Mapping[str, Callable[[Draw], Iterator[Case]]] = {
    **pointwise.CASES,
    **views.CASES,
    **joins.CASES,
    **products.CASES,
    **reductions.CASES,
    **attention.CASES,
}


def cases_of(name: str, seed: int) -> Iterator[Case]:
    """Some calls of an operator."""
    here, there = (CASES[name](Draw(f"{name} {seed}", size)) for size in (0, 1))
    for one, other in zip(here, there, strict=True):
        yield one.beside(other)
