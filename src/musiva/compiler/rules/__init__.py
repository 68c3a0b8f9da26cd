"""What each operator of ATen does to labels: a table of small functions, by the operator's name.

A rule says of one call what the dimensions of its results stand for, and in which way it can run on
rows (`musiva.compiler.call`). It raises Unlabelled where it mixes tokens in a way for which there
is none: then the operation runs sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from musiva.compiler.call import Call, Outcome
from musiva.compiler.rules import attention, joins, pointwise, products, reductions, views

__all__ = ["RULES"]

RULES: Mapping[str, Callable[[Call], Outcome]] = {
    **pointwise.RULES,
    **views.RULES,
    **joins.RULES,
    **products.RULES,
    **reductions.RULES,
    **attention.RULES,
}
