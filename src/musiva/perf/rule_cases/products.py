"""Calls of operators that contract dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from musiva.compiler.labels import Axis, Joint, Label, Layout, Product, extent, feature, tokens
from musiva.perf.rule_cases.base import Case, aten, tokens_of
from musiva.perf.rule_cases.draw import Domain, Draw

__all__ = ["CASES"]

COUNT = 8


def _linear(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        dtype = draw.types()[Domain.ANY]
        last = draw.pick([feature(4), feature(4), (draw.marks,), (draw.frames,)])
        layout = draw.layout(last) if last == feature(4) else (draw.pick([(), feature(3)]), last)
        size = extent(last)
        # A sample's own matrix is no layer.
        own = ((draw.words,), feature(size)) if draw.chance(0.15) else None
        weight = draw.operand(own, dtype) if own else draw.weight(6, size, dtype=dtype)
        bias = [draw.weight(6, dtype=dtype)] if draw.chance(0.5) and own is None else []
        yield Case(aten.linear.default, [draw.some(layout, dtype), weight, *bias])


def _matmul(name: str, draw: Draw) -> Iterator[Case]:
    rank = {"mm": 0, "bmm": 1}.get(name)
    for _ in range(2 * COUNT):
        dtype = draw.types()[Domain.ANY]
        several = draw.distinct()
        lead: Layout = (several[0], feature(2))[: draw.pick((0, 1, 2)) if rank is None else rank]
        inner, tokens, other = draw.pick([feature(4), feature(4), several[1]]), *several[2:4]
        if draw.chance(0.3):
            lead, inner, tokens = tuple(feature(2) for _ in lead), feature(4), draw.joint()
        # Tokens by features, or by tokens, the same or others.
        left = draw.pick([tokens, tokens, feature(3), other])
        right = draw.pick([feature(5), feature(5), tokens, other])
        if inner == several[1] and draw.chance(0.5):
            # A sum over all tokens.
            lead, left, right = tuple(feature(2) for _ in lead), feature(3), feature(5)
        one, two = (*lead, left, inner), (*lead, inner, right)
        if rank is None:
            two = draw.pick([two, two[-2:], draw.near(lead) + two[-2:]])
        second = draw.other(two, dtype)
        if inner != feature(4) and draw.chance(0.5):
            # Of as many features as there are tokens.
            second = draw.operand((*two[:-2], feature(extent(inner)), two[-1]), dtype)
        yield Case(getattr(aten, name).default, [draw.some(one, dtype), second])


def _addmm(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        dtype = draw.types()[Domain.ANY]
        marks: Label = (draw.marks,)
        several = [label for label in draw.distinct() if label != marks]
        first = draw.pick([several[0], several[1], draw.joint(), feature(3)])
        inner, last = draw.pick([feature(4), feature(4), marks]), draw.pick([feature(5), marks])
        if inner == marks or "marks" in tokens(first):
            last = feature(5)
        inner = feature(4) if "marks" in tokens(first) else inner
        # What is added brings tokens of its own, too.
        added = draw.pick([(last,), (last,), (first, last)])
        matrix = draw.weight(extent(inner), extent(last), dtype=dtype)
        if draw.chance(0.15):
            matrix = draw.operand((inner, feature(extent(last))), dtype)
        rows = draw.some((first, inner), dtype)
        yield Case(aten.addmm.default, [draw.other(added, dtype), rows, matrix])


def _outer(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        one, two, *_ = draw.distinct()
        left = draw.pick([one, one, feature(3), draw.joint()])
        right = draw.pick([feature(4), feature(4), two])
        both = draw.shuffled([left, right])
        operands = [draw.some((both[0],)), draw.other((both[1],))]
        yield Case(aten.outer.default, operands)


EQUATIONS = (
    "nd,dk->nk",
    "nd,dk->kn",
    "bnd,bdk->bnk",
    "bnd,d->bn",
    "bnd,bd->bnd",
    "bhnd,bhmd->bhnm",
    "nd->dn",
    "bnd->bd",
    "bnd->bnd",
    "nd,nd->n",
    "nd,nd,d->nd",
)


def _einsum(draw: Draw) -> Iterator[Case]:
    for _ in range(2 * COUNT):
        equation = draw.pick(EQUATIONS)
        letters = sorted(set(equation) - set(",->"))
        several = draw.distinct()
        labels = draw.shuffled(several[:2] + [feature(2)] * 4)
        # Channels are seldom tokens.
        of: dict[str, Label] = {}
        for letter, label in zip(letters, labels, strict=False):
            of[letter] = feature(4) if letter in "dk" and draw.chance(0.8) else label
        inputs = equation.partition("->")[0].split(",")
        layouts = [tuple(of[letter] for letter in own) for own in inputs]
        operands = [draw.some(layouts[0]), *map(draw.other, layouts[1:])]
        if len(layouts) > 1 and draw.chance(0.3):
            operands[1] = draw.operand(draw.twisted(layouts[1]))
        yield Case(aten.einsum.default, [equation, operands])


def _convolution(rank: int, draw: Draw) -> Iterator[Case]:
    for _ in range(2 * COUNT):
        kind = draw.pick(("patch", "patch", "patch", "overlap", "mixed"))
        labels = [_only(draw, label) for label in draw.distinct()[:rank]]
        windows = []
        for i, own in enumerate(labels):
            which = kind if kind != "mixed" else draw.pick(("patch", "overlap", "point", "odd"))
            if which == "patch":
                labels[i] = _places(draw, own)
            windows.append(_window(draw, which))
        kernel, stride, padding, dilation = (list(column) for column in zip(*windows, strict=True))
        batch: Label = draw.pick([(), (), (draw.frames,)])
        if "frames" in tokens_of(tuple(labels)):
            batch = ()
        channels, groups = draw.pick([(feature(4), 1), (feature(4), 1), (feature(4), 2)])
        if draw.chance(0.15) and "marks" not in tokens_of(tuple(labels)):
            channels, groups = (draw.marks,), 1
        width = extent(channels) // groups
        layers = [draw.weight(4, width, *kernel), draw.weight(4)]
        yield Case(
            getattr(aten, f"conv{rank}d").default,
            [draw.some((batch, channels, *labels)), *layers, stride, padding, dilation, groups],
        )


def _places(draw: Draw, own: Product) -> Product:
    """With two places a token, with none but those, or with tokens that turn out to be places."""
    which = draw.pick(("token", "token", "token", "token", "token", "token", "alone", "outside"))
    if which == "alone":
        return (Axis("q", 2),)
    return (*own, Axis("q", 2)) if which == "token" else (Axis("q", 2), *own)


def _only(draw: Draw, label: Label) -> Product:
    """Its tokens, mostly one axis of them alone."""
    assert not isinstance(label, Joint)
    own = tuple(axis for axis in label if axis.token)
    return own if draw.chance(0.1) else own[:1]


def _window(draw: Draw, which: str) -> tuple[int, int, int, int]:
    """Kernel, stride, padding, dilation."""
    if which == "patch":
        return 2, 2, 0, 1
    if which == "point":
        return 1, 1, 0, 1
    if which == "overlap":
        return draw.pick([(3, 1, 1, 1), (3, 1, 1, 1), (3, 1, 2, 2), (1, 1, 0, 1)])
    return draw.pick([(3, 2, 1, 1), (2, 1, 0, 1), (1, 2, 0, 1), (2, 2, 1, 1)])


CASES: Mapping[str, Callable[[Draw], Iterator[Case]]] = {
    "linear": _linear,
    "addmm": _addmm,
    **{name: partial(_matmul, name) for name in ("matmul", "bmm", "mm")},
    "outer": _outer,
    "einsum": _einsum,
    **{f"conv{rank}d": partial(_convolution, rank) for rank in (1, 2, 3)},
}
