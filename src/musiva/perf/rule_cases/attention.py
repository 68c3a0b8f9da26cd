"""Calls of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch

from musiva.compiler.labels import Joint, Label, Layout, extents, feature
from musiva.perf.rule_cases.base import Case, Operand, aten
from musiva.perf.rule_cases.draw import Domain, Draw

__all__ = ["CASES"]

COUNT = 12


def _attention(draw: Draw) -> Iterator[Case]:
    image, words = (draw.rows, draw.columns), (draw.words,)
    frames, rows, columns = (draw.frames,), (draw.rows,), (draw.columns,)
    both = Joint((words, image))
    # Dimensions in front, tokens of queries, tokens of keys.
    several: list[tuple[Layout, Label, Label]] = [
        (((),), image, image),
        (((),), image, words),
        (((),), both, both),
        (((),), image, both),
        ((), image, image),
        ((frames,), image, image),
        ((frames,), image, words),
        ((image,), frames, frames),
        (((), frames), image, image),
        ((rows, columns), frames, frames),
        (((*frames, *image),), words, words),
        ((rows,), columns, columns),
        ((frames,), both, both),
        (((),), (*frames, *image), (*frames, *image)),
        (((),), image, feature(3)),
        (((),), feature(3), words),
    ]
    for _ in range(COUNT):
        dtype = draw.types()[Domain.ANY]
        lead, queries, keys = draw.pick(several)
        heads = draw.pick([feature(2), feature(2), feature(2), ()])
        # Keys that are the same in all groups, or features as long as tokens.
        other = draw.pick([lead, lead, draw.near(lead), tuple(() for _ in lead)])
        other = (*(() for _ in range(len(lead) - len(other))), *other)
        width = draw.pick([feature(4), feature(4), feature(4), (draw.marks,)])
        operands = [
            draw.some((*lead, heads, queries, width), dtype),
            draw.other((*other, heads, keys, width), dtype),
            draw.other((*other, heads, keys, draw.pick([feature(4), feature(3)])), dtype),
        ]
        yield _case(draw, operands)


def _case(draw: Draw, operands: list[Operand]) -> Case:
    """With a mask that masks nothing, one that does, or none; seldom causal."""
    op = aten.scaled_dot_product_attention.default
    *_, queries, _ = extents(operands[0].layout)
    *_, keys, _ = extents(operands[1].layout)
    which = draw.pick(("none", "none", "none", "none", "open", "mask", "causal", "scale"))
    mask = draw.operand((feature(queries), feature(keys)), torch.bool, Domain.MASK, kind="place")
    if which == "open":
        return Case(op, [*operands, replace(mask, tensor=mask.tensor | True, is_open=True)])
    if which == "mask":
        return Case(op, [*operands, mask])
    if which == "causal":
        return Case(op, [*operands, None, 0.0, True])
    return Case(op, operands, {"scale": 0.3} if which == "scale" else {})


CASES: Mapping[str, Callable[[Draw], Iterator[Case]]] = {"scaled_dot_product_attention": _attention}
