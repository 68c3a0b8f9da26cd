"""How operations that mix tokens, or are worth replacing, are written: as calls of the run, of rows
that are laid anew, or sample by sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch.fx import Node

from musiva.compiler.call import Outcome
from musiva.compiler.export import Path
from musiva.compiler.flow import op_of
from musiva.compiler.labels import (
    Joint,
    Layout,
    Product,
    Unlabelled,
    features,
    is_unknown,
    tokens,
)
from musiva.compiler.operands import Written, count, first, full, several, variable
from musiva.compiler.program import (
    Args,
    Number,
    Operand,
    Recipe,
    Streams,
    called,
    constant,
    path_of,
)

if TYPE_CHECKING:
    from musiva.compiler.rows import Writer

__all__ = ["MIXING"]


def _linear(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams = writer.streams[node.name, 0]
    operand = args["input"]
    assert isinstance(operand, Operand)
    found = writer.rows(operand, streams)
    layer = _layer(writer, node, args)
    middle = [features(label) for label in operand.layout[:-1]]
    width = features(operand.layout[-1])
    shape = (-1, *middle, features(outcome.layouts[0][-1]))
    text = f"at.linear(run, {layer!r}, {found}.reshape(-1, {width})).reshape({shape})"
    return text, "linear", [variable(found)]


def _patch(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    """A convolution on each token alone is a linear layer over its channels and places; where a
    token has several windows, over those of each.
    """
    streams = writer.streams[node.name, 0]
    operand = args["input"]
    assert isinstance(operand, Operand)
    found = writer.rows(operand, streams)
    layer = _layer(writer, node, args)
    count, depth, *windows = map(features, outcome.layouts[0])
    shape = (-1, count, depth, *windows)
    if count == math.prod(windows) == 1:
        text = f"at.linear(run, {layer!r}, {found}.flatten(1)).reshape({shape})"
        return text, "linear", [variable(found)]
    _, channels, *places = map(features, operand.layout)
    inner = [whole // outer for whole, outer in zip(places, windows, strict=True)]
    cut = [n for both in zip(windows, inner, strict=True) for n in both]
    n = len(windows)
    order = (0, 1, *range(3, 3 + 2 * n, 2), 2, *range(4, 4 + 2 * n, 2))
    each = f"{found}.reshape({(-1, count, channels, *cut)}).permute({order})"
    flat = f"{each}.reshape(-1, {channels * math.prod(inner)})"
    text = f"at.linear(run, {layer!r}, {flat}).reshape({(-1, count, *windows, depth)})"
    return f"{text}.movedim(-1, 2)", "linear", [variable(found)]


def _layer(writer: Writer, node: Node, args: Args) -> str:
    """The site of a layer."""
    weight, bias = args["weight"], args.get("bias")
    assert isinstance(weight, Operand)
    return writer.layer(
        weight.name, bias.name if isinstance(bias, Operand) else None, path_of(node)
    )


def _attend(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    over = outcome.over
    parts = []
    operands = [args[name] for name in ("query", "key", "value")]
    reads = []
    sets: list[Streams] = []
    for operand in operands:
        assert isinstance(operand, Operand)
        along = frozenset(n for x in operand.layout for n in tokens(x))
        value = operand.value
        along &= value.along if not (value.place or value.dense) else along
        streams = writer.streams_of(operand.layout, along)
        found = writer.rows(operand, streams)
        heads, width = features(operand.layout[-3]), features(operand.layout[-1])
        parts.append(f"{found}.reshape(-1, {heads}, {width})")
        reads.append(variable(found))
        sets.append(streams)
    if sets[1] != sets[2]:
        raise Unlabelled("keys and values of different streams")
    scale = args.get("scale")
    if ("scale",) in writer.aligned.moving[node.name]:
        scale = writer.named(Number(node.name, ("scale",)))
    shape = (-1, *map(features, outcome.layouts[0]))
    text = (
        f"at.attend(run, {writer.site(path_of(node))!r}, {parts[0]}, {parts[1]}, {parts[2]}, "
        f"{sets[0]!r}, {sets[1]!r}, {over['over']!r}, {scale!r}).reshape({shape})"
    )
    return text, "attend", reads


def _join(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    (layout,) = outcome.layouts
    (joint,) = (label for label in layout if isinstance(label, Joint))
    left = list(joint.parts)
    texts, reads = [], []
    for one in full(args["tensors"]):
        own = next((label for label in one.layout if isinstance(label, Joint)), None)
        parts, left = left[: len(own.parts) if own else 1], left[len(own.parts) if own else 1 :]
        if own is None and parts[0][0].name == one.value.name:
            streams, found = _own_tokens(writer, one, layout, parts[0])
        else:
            every = frozenset(n for x in one.layout for n in tokens(x))
            streams = writer.streams_of(one.layout, every)
            found = writer.rows(one, streams)
        shape = (-1, *map(features, layout))
        texts.append(f"{found}.expand({shape})")
        reads.append(variable(found))
    every = frozenset(axis.name for part in joint.parts for axis in part)
    writer.streams[node.name, 0] = writer.streams_of(layout, every)
    return f"torch.cat([{', '.join(texts)}])", "join", reads


def _own_tokens(
    writer: Writer, operand: Operand, layout: Layout, part: Product
) -> tuple[Streams, str]:
    """What was no tokens before, on rows."""
    dim = next(i for i, label in enumerate(layout) if isinstance(label, Joint))
    stream = writer.own_stream(operand.value, dim)
    own = (*operand.layout[:dim], part, *operand.layout[dim + 1 :])
    if is_unknown(operand.value.layout[dim]) and not operand.value.dense:
        # All of them are what there is one of for a sample.
        found = writer.rows(operand, (stream,))
        if variable(found) in writer.single:
            found += f".expand({count((stream,))}, {', '.join(map(str, map(features, own)))})"
        return (stream,), found
    dims = Recipe.of(own).dims
    each = several(writer, operand)
    text = f"at.lay([{each} for i in range(len(at.lengths))], {(stream,)!r}, {dims!r})"
    return (stream,), writer.once(("lay", operand.name, dims), text, each, (stream,))


def _take(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    operand = first(args)
    source = writer.streams[operand.value.name, operand.value.index]
    spans = outcome.over["parts"]
    assert isinstance(spans, tuple)
    texts = []
    for i, (a, b) in enumerate(spans):
        own = source[a:b]
        # A stream that was there twice, by itself again.
        one = (writer.program.copies.get(own[0], own[0]),) if len(own) == 1 else own
        writer.streams[node.name, i] = one
        texts.append(f"at.part({operand.name}, {source!r}, {a}, {b})")
    several = len(spans) > 1 or op_of(node) not in ("slice", "narrow")
    return f"({', '.join(texts)},)" if several else texts[0], "take", [operand.name]


def _replace(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    whole, source = args["self"], args["src"]
    assert isinstance(whole, Operand)
    assert isinstance(source, Operand)
    streams = writer.streams[whole.value.name, whole.value.index]
    first, end = outcome.over["parts"]  # pyright: ignore
    new = writer.rows(source, streams[first:end])
    parts = [
        f"at.part({whole.name}, {streams!r}, 0, {first})" if first else "",
        new,
        f"at.part({whole.name}, {streams!r}, {end}, {len(streams)})" if end < len(streams) else "",
    ]
    return f"torch.cat([{', '.join(filter(None, parts))}])", "join", [whole.name, new]


def _conv(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams = writer.streams[node.name, 0]
    operand = args["input"]
    assert isinstance(operand, Operand)
    found = writer.rows(operand, streams)
    layer = _layer(writer, node, args)
    writer.program.convolutions[layer] = {
        name: given for name, given in args.items() if not isinstance(given, Operand)
    }
    shape = (-1, *map(features, outcome.layouts[0]))
    text = f"at.conv(run, {layer!r}, {found}.flatten(1), {streams[0]!r}).reshape({shape})"
    return text, "conv", [variable(found)]


def _reduce(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    (layout,) = outcome.layouts
    *lead, rows, columns = map(features, layout)
    texts, reads = [], []
    operands = [one for one in args.values() if isinstance(one, Operand)][-2:]
    (stream,) = writer.streams_of(operands[0].layout, frozenset(tokens(operands[0].layout[-1])))
    for operand, size in zip(operands, (rows, columns), strict=True):
        found = writer.rows(operand, (stream,), len(layout))
        own = tuple(map(features, operand.layout[-2:]))
        each = (-1, *lead, *own)
        texts.append(f"{found}.expand({each}).reshape(-1, {math.prod(lead)}, {size})")
        reads.append(variable(found))
    site = writer.site(path_of(node))
    shape, dtype = (-1, *map(features, layout)), node.meta["val"].dtype
    text = f"at.reduce(run, {site!r}, {', '.join(texts)}, {stream!r}).reshape({shape}).to({dtype})"
    return text, "reduce", reads


def _pool(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    operand, (layout,) = first(args), outcome.layouts
    axes = frozenset(name for label in operand.layout for name in tokens(label))
    (stream,) = writer.streams_of(operand.layout, axes)
    found = writer.rows(operand, (stream,))
    site, shape = writer.site(path_of(node)), (-1, *map(features, layout))
    mean, dtype = outcome.over["mean"], node.meta["val"].dtype
    pooled = f"at.pool(run, {site!r}, {found}.flatten(1), {stream!r}, {mean!r})"
    return f"{pooled}.reshape({shape}).to({dtype})", "reduce", [variable(found)]


def _apply(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams, rank = writer.streams[node.name, 0], len(outcome.layouts[0])
    operands = [one for one in args.values() if isinstance(one, Operand)][-2:]
    left = bool(outcome.over["left"])
    table, rows = operands if left else operands[::-1]
    matrix = writer.rows(table, (), rank)
    found = writer.rows(rows, streams, rank)
    text = f"at.apply({matrix}, {found}, {streams!r}, {left!r})"
    return text, "matmul", [variable(matrix), variable(found)]


def _dense(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    """Sample by sample; numbers that depend on sizes are worked out of those of the sample."""
    reads: list[str] = []
    fitted = _fitted(writer, node)

    def shown(given: object, path: Path) -> str:
        if isinstance(given, Operand):
            found = several(writer, given)
            reads.append(variable(found))
            return found
        if isinstance(given, list):
            return "[{}]".format(", ".join(shown(one, (*path, i)) for i, one in enumerate(given)))
        if path in fitted:
            return fitted[path]
        return constant(given)

    texts = {name: shown(given, (name,)) for name, given in args.items()}
    text = called(node, texts).replace("aten.view.default", "aten.reshape.default")
    return f"[{text} for i in range(len(at.lengths))]", "dense", reads


def _fitted(writer: Writer, node: Node) -> dict[Path, str]:
    """Of the numbers among the arguments of a node, those that depend on sizes, of branch i."""
    found = {}
    for path, values in writer.aligned.moving[node.name].items():
        number, whole = Number(node.name, path), [n for n in values if isinstance(n, int)]
        if len(whole) == len(values):
            found[path] = writer.fitted(whole, number).python("at.lengths[i]")
        else:
            found[path] = f"at.floats[i][{writer.named(number)!r}]"
    return found


MIXING: Mapping[str, Callable[[Writer, Node, Args, Outcome], Written]] = {
    "linear": _linear,
    "patch": _patch,
    "attend": _attend,
    "join": _join,
    "take": _take,
    "replace": _replace,
    "conv": _conv,
    "reduce": _reduce,
    "pool": _pool,
    "apply": _apply,
    "dense": _dense,
}
