"""Calls of operators along whole dimensions: sums, norms, softmax, sorting, looking up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch._ops import OpOverload

from musiva.compiler.labels import Label, extent, extents, feature
from musiva.perf.rule_cases.base import Case, aten
from musiva.perf.rule_cases.draw import Domain, Draw
from musiva.perf.rule_cases.pointwise import calls, form

__all__ = ["CASES"]

COUNT = 4
MASK = Domain.MASK


@dataclass(frozen=True, slots=True)
class Over:
    """How a reduction is called: over dimensions in a list, one of them, or none that are named.
    before: what stands before them. keeps: whether it can keep dimensions of 1.
    """

    op: OpOverload
    dims: str
    before: Sequence[object] = ()
    named: Mapping[str, object] = field(default_factory=dict)
    domain: Domain = Domain.ANY
    keeps: bool = True


def _over(op: OpOverload, dims: str, *before: object, **named: object) -> Over:
    return Over(op, dims, before, named, keeps=dims != "every")


def _truth(op: OpOverload, dims: str) -> Over:
    return Over(op, dims, domain=MASK, keeps=dims != "every")


REDUCTIONS: Mapping[str, Sequence[Over]] = {
    **{
        name: [_truth(op.dim, "one"), _truth(op.dims, "list"), _truth(op.default, "every")]
        for name in ("all", "any")
        for op in [getattr(aten, name)]
    },
    **{
        name: [_over(op.default, "list"), _over(op.default, "none")]
        for name in ("amax", "amin")
        for op in [getattr(aten, name)]
    },
    **{
        name: [_over(op.default, "one"), _over(op.default, "none")]
        for name in ("argmax", "argmin")
        for op in [getattr(aten, name)]
    },
    **{
        name: [_over(op.dim, "one"), _over(op.default, "every")]
        for name in ("max", "min")
        for op in [getattr(aten, name)]
    },
    **{
        name: [
            _over(op.correction, "list", correction=0),
            _over(op.correction, "none", correction=0),
        ]
        for name in ("std", "var", "var_mean")
        for op in [getattr(aten, name)]
    },
    "linalg_vector_norm": [
        _over(aten.linalg_vector_norm.default, "list", 2.0),
        _over(aten.linalg_vector_norm.default, "none", 1.0),
    ],
    "logsumexp": [_over(aten.logsumexp.default, "list")],
    "mean": [_over(aten.mean.dim, "list"), _over(aten.mean.default, "every")],
    "norm": [_over(aten.norm.ScalarOpt_dim, "list", 2.0), _over(aten.norm.Scalar, "every", 2.0)],
    "prod": [_over(aten.prod.dim_int, "one"), _over(aten.prod.default, "every")],
    "sum": [
        _over(aten.sum.dim_IntList, "list"),
        _over(aten.sum.dim_IntList, "list", dtype=torch.float32),
        _over(aten.sum.default, "every"),
    ],
}


# Element by element.
OF_TWO = {"max": aten.max.other, "min": aten.min.other}


def _reduction(name: str, draw: Draw) -> Iterator[Case]:
    if name in OF_TWO:
        yield from calls(form(OF_TWO[name], Domain.ANY, Domain.ANY))(draw)
    for over in REDUCTIONS[name]:
        for _ in range(COUNT):
            layout, types = draw.layout(), draw.types()
            if over.dims in ("every", "none"):
                layout = draw.pick([layout, (feature(3),), (feature(2), feature(4))])
            named = dict(over.named)
            if over.keeps and draw.chance(0.6):
                named["keepdim"] = draw.pick((True, False))
            dims = _dims(draw, over.dims, len(layout))
            if dims and draw.chance(0.25):
                # Over tokens, and nothing else.
                layout, dims = ((), draw.label(), feature(4)), [1 if over.dims == "one" else [1]]
            operand = draw.some(layout, types[over.domain], over.domain)
            yield Case(over.op, [operand, *over.before, *dims], named)


def _dims(draw: Draw, which: str, rank: int) -> list[object]:
    """As an argument, where there is one."""
    if which in ("every", "none"):
        return []
    several = [dim - rank if draw.chance(0.4) else dim for dim in draw.shuffled(range(rank))]
    return [several[0]] if which == "one" else [several[: draw.pick((1, 1, 2))]]


def _along(op: OpOverload, *more: object, **named: object) -> Callable[[Draw], Iterator[Case]]:
    def cases(draw: Draw) -> Iterator[Case]:
        for _ in range(2 * COUNT):
            layout, dtype = draw.layout(), draw.types()[Domain.ANY]
            yield Case(op, [draw.some(layout, dtype), draw.dim(len(layout)), *more], named)

    return cases


def _sort(draw: Draw) -> Iterator[Case]:
    yield from _along(aten.sort.default, True)(draw)
    for _ in range(COUNT):
        layout = draw.layout()
        named = {"stable": True, "dim": draw.dim(len(layout))}
        yield Case(aten.sort.stable, [draw.some(layout)], named)


def _topk(draw: Draw) -> Iterator[Case]:
    for _ in range(2 * COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        count = min(draw.pick((1, 2)), extent(layout[dim]))
        yield Case(aten.topk.default, [draw.some(layout), count, dim])


def _norm(name: str, draw: Draw) -> Iterator[Case]:
    """Over the last dimensions, with weights or without."""
    scales = {"rms_norm": 1, "_fused_rms_norm": 1}.get(name, 2)
    end: list[object] = [1e-5]
    for _ in range(2 * COUNT):
        over = draw.pick([(feature(4),), (feature(4),), (feature(3), feature(4))])
        layout = draw.layout(*over)
        some = draw.chance(0.6)
        if draw.chance(0.25):
            # Tokens are what it is over.
            layout = ((), feature(3), draw.label())
            over, some = layout[-draw.pick((1, 2)) :], False
        shape = list(extents(over))
        dtype = draw.pick((torch.float64, torch.float32))
        given = [draw.weight(*shape, dtype=dtype) if some else None for _ in range(scales)]
        yield Case(getattr(aten, name).default, [draw.some(layout, dtype), shape, *given, *end])


def _embedding(draw: Draw) -> Iterator[Case]:
    for _ in range(2 * COUNT):
        # Tokens of a sample are no table.
        own = draw.operand(((draw.words,), feature(4)))
        table = draw.pick([draw.weight(8, 4), draw.weight(8, 4), own])
        indices = draw.some(draw.layout(), torch.int64, Domain.INDEX, high=len(table.tensor))
        yield Case(aten.embedding.default, [table, indices])


def _one_hot(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        indices = draw.some(draw.layout(), torch.int64, Domain.INDEX, high=6)
        yield Case(aten.one_hot.default, [indices, 6])


def _gather(draw: Draw) -> Iterator[Case]:
    for _ in range(3 * COUNT):
        layout = draw.layout()
        found = [i for i, label in enumerate(layout) if label != ()]
        dim = draw.pick(found)
        size = extent(layout[dim])
        inside: Label = draw.pick([feature(2), feature(3), layout[dim], ()])
        index = (*layout[:dim], inside, *layout[dim + 1 :])
        other, turned = draw.below(len(layout)), draw.twisted(index)
        fewer = draw.pick([(), feature(2)])
        if draw.chance(0.3) and other != dim and layout[other] != ():
            # Only some of another dimension.
            index = (*index[:other], fewer, *index[other + 1 :])
        elif draw.chance(0.1):
            index = turned
        indices = draw.other(index, torch.int64, Domain.INDEX, high=size)
        yield Case(aten.gather.default, [draw.some(layout), dim, indices])


CASES: Mapping[str, Callable[[Draw], Iterator[Case]]] = {
    **{name: partial(_reduction, name) for name in REDUCTIONS},
    "softmax": _along(aten.softmax.int),
    "_softmax": _along(aten._softmax.default, False),
    "log_softmax": _along(aten.log_softmax.int),
    "_log_softmax": _along(aten._log_softmax.default, False),
    "cumsum": _along(aten.cumsum.default),
    "cumprod": _along(aten.cumprod.default),
    "sort": _sort,
    "topk": _topk,
    **{
        name: partial(_norm, name)
        for name in ("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
    },
    "embedding": _embedding,
    "one_hot": _one_hot,
    "gather": _gather,
}
