"""How an operation of the graph is written on rows, in each of the ways that rules name.

Each function gives the text, its kind, and the variables that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch.fx import Node

from musiva.compiler.call import Outcome
from musiva.compiler.export import Path
from musiva.compiler.flow import op_of
from musiva.compiler.labels import Joint, Layout, Product, Unlabelled, features, tokens
from musiva.compiler.program import (
    Args,
    Operand,
    Recipe,
    Streams,
    called,
    constant,
    path_of,
)
from musiva.compiler.sizes import Expression, fit

if TYPE_CHECKING:
    from musiva.compiler.rows import Writer

__all__ = ["WAYS", "Written"]

Written = tuple[str, str, list[str]]


def _same(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams = writer.streams[node.name, 0]
    # Operands meet aligned at their last dimensions.
    rank = max((len(one.layout) for one in args.values() if isinstance(one, Operand)), default=0)
    reads: list[str] = []
    dims = outcome.over.get("dims", {})
    replaced = outcome.over.get("with", {})
    assert isinstance(dims, Mapping)
    assert isinstance(replaced, Mapping)
    align = not dims and outcome.over.get("align", True)

    def shown(name: str, given: object) -> str:
        if isinstance(given, Operand):
            found = writer.rows(given, streams, rank if align else None)
            reads.append(_variable(found))
            return found
        if name in dims:
            found = dims[name]
            return repr(found + 1 if isinstance(found, int) else [d + 1 for d in found])
        if name in replaced:
            return repr(replaced[name])
        if isinstance(given, list):
            return "[{}]".format(", ".join(shown(name, one) for one in given))
        return constant(given)

    texts = {name: shown(name, given) for name, given in args.items()}
    for name in [*dims, *replaced]:
        if name not in texts:
            texts[name] = shown(name, None)
    return called(node, texts), op_of(node), reads


def _keep(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(_first(args), writer.streams[node.name, 0])
    return found, "keep", [_variable(found)]


def _shape(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(_first(args), writer.streams[node.name, 0])
    shape = (-1, *map(features, outcome.layouts[0]))
    return f"{found}.reshape({shape})", "shape", [_variable(found)]


def _order(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(_first(args), writer.streams[node.name, 0])
    order = outcome.over["order"]
    assert isinstance(order, tuple)
    return f"{found}.permute({(0, *(dim + 1 for dim in order))})", "order", [_variable(found)]


def _spread(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams, out = writer.streams[node.name, 0], outcome.layouts[0]
    found = writer.rows(_first(args), streams, len(out))
    return f"{found}.expand({(-1, *map(features, out))})", "spread", [_variable(found)]


def _cat(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams = writer.streams[node.name, 0]
    dims = outcome.over["dims"]
    assert isinstance(dims, Mapping)
    dim = dims["dim"]
    reads, parts = [], []
    for one in _full(args["tensors"]):
        found = writer.rows(one, streams)
        reads.append(_variable(found))
        shape = list(map(features, outcome.layouts[0]))
        if op_of(node) == "stack":
            del shape[dim]
        else:
            shape[dim] = features(one.layout[dim])
        parts.append(f"{found}.expand(({_count(streams)}, {', '.join(map(str, shape))}))")
    return f"torch.{op_of(node)}([{', '.join(parts)}], {dim + 1})", "cat", reads


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
    return text, "linear", [_variable(found)]


def _patch(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    """A convolution on each token alone is a linear layer over its channels and places."""
    streams = writer.streams[node.name, 0]
    operand = args["input"]
    assert isinstance(operand, Operand)
    found = writer.rows(operand, streams)
    layer = _layer(writer, node, args)
    shape = (-1, *map(features, outcome.layouts[0]))
    text = f"at.linear(run, {layer!r}, {found}.flatten(1)).reshape({shape})"
    return text, "linear", [_variable(found)]


def _layer(writer: Writer, node: Node, args: Args) -> str:
    """The name of the weight, by which the layer is found."""
    weight = args["weight"]
    assert isinstance(weight, Operand)
    bias = args.get("bias")
    writer.program.constants.add(weight.name)
    if isinstance(bias, Operand):
        writer.program.constants.add(bias.name)
        return f"{weight.name}|{bias.name}"
    return f"{weight.name}|"


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
        reads.append(_variable(found))
        sets.append(streams)
    if sets[1] != sets[2]:
        raise Unlabelled("keys and values of different streams")
    scale = args.get("scale")
    shape = (-1, *map(features, outcome.layouts[0]))
    text = (
        f"at.attend(run, {path_of(node)!r}, {parts[0]}, {parts[1]}, {parts[2]}, "
        f"{sets[0]!r}, {sets[1]!r}, {over['over']!r}, {scale!r}).reshape({shape})"
    )
    return text, "attend", reads


def _join(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    (layout,) = outcome.layouts
    (joint,) = (label for label in layout if isinstance(label, Joint))
    left = list(joint.parts)
    texts, reads = [], []
    for one in _full(args["tensors"]):
        own = next((label for label in one.layout if isinstance(label, Joint)), None)
        parts, left = left[: len(own.parts) if own else 1], left[len(own.parts) if own else 1 :]
        streams = writer.streams_of(one.layout, frozenset(n for x in one.layout for n in tokens(x)))
        if streams:
            found = writer.rows(one, streams)
        else:
            streams, found = _constant_tokens(writer, one, layout, parts[0])
        shape = (-1, *map(features, layout))
        texts.append(f"{found}.expand({shape})")
        reads.append(_variable(found))
    every = frozenset(axis.name for part in joint.parts for axis in part)
    writer.streams[node.name, 0] = writer.streams_of(layout, every)
    return f"torch.cat([{', '.join(texts)}])", "join", reads


def _constant_tokens(
    writer: Writer, operand: Operand, layout: Layout, part: Product
) -> tuple[Streams, str]:
    """Tokens of which every sample has as many get a stream of their own."""
    (axis,) = part
    stream = writer.stream_of.setdefault(axis.name, axis.name)
    writer.program.extras[stream] = axis.extent
    own = tuple(
        part if isinstance(label, Joint) else mine
        for label, mine in zip(layout, operand.layout, strict=True)
    )
    dims = Recipe.of(own).dims
    several = _several(writer, operand)
    text = f"at.lay([{several} for i in range(len(at.lengths))], {(stream,)!r}, {dims!r})"
    read = several.partition("[")[0]
    return (stream,), writer.once(("lay", operand.name, dims), text, read, (stream,))


def _take(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    operand = _first(args)
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


def _repeat(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams, rank = writer.streams[node.name, 0], len(outcome.layouts[0])
    found = writer.rows(_first(args), streams, rank)
    times = outcome.over["times"]
    assert isinstance(times, tuple)
    return f"{found}.repeat({(1, *times)})", "repeat", [_variable(found)]


def _interleave(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(_first(args), writer.streams[node.name, 0])
    dim, times = outcome.over["dim"], outcome.over["times"]
    assert isinstance(dim, int)
    return f"{found}.repeat_interleave({times}, {dim + 1})", "repeat", [_variable(found)]


def _cast(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(_first(args), writer.streams[node.name, 0])
    return f"{found}.to({node.meta['val'].dtype})", "cast", [_variable(found)]


def _copy(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    source, out = args["src"], outcome.layouts[0]
    assert isinstance(source, Operand)
    found = writer.rows(source, writer.streams[node.name, 0], len(out))
    if found.startswith("c."):
        writer.single.add(node.name)
    shape = (1 if found.startswith("c.") else -1, *map(features, out))
    return f"{found}.expand({shape}).to({node.meta['val'].dtype})", "cast", [_variable(found)]


def _scatter(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams = writer.streams[node.name, 0]
    dim = outcome.over["dim"]
    assert isinstance(dim, int)
    texts, reads = [], []
    for name in ("self", "src"):
        one = args[name]
        assert isinstance(one, Operand)
        found = writer.rows(one, streams)
        shape = list(map(features, outcome.layouts[0]))
        shape[dim] = features(one.layout[dim])
        texts.append(f"{found}.expand(({_count(streams)}, {', '.join(map(str, shape))}))")
        reads.append(_variable(found))
    numbers = [args.get("start"), args.get("end"), args.get("step", 1)]
    text = f"torch.slice_scatter({', '.join(texts)}, {dim + 1}, *{numbers!r})"
    return text, "scatter", reads


def _outer(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams = writer.streams[node.name, 0]
    found = []
    for name in ("self", "vec2"):
        one = args[name]
        assert isinstance(one, Operand)
        found.append(writer.rows(one, streams))
    return f"{found[0]}.unsqueeze(-1) * {found[1]}.unsqueeze(-2)", "mul", [*map(_variable, found)]


def _fill(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    """One row of it: it meets rows of any number."""
    writer.single.add(node.name)
    shape = (1, *map(features, outcome.layouts[0]))
    name = op_of(node)
    number = args.get("fill_value", float("ones" in name))
    dtype = node.meta["val"].dtype
    return f"torch.full({shape}, {number!r}, dtype={dtype}, device=at.device)", "fill", []


def _shuffle(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    """[..., C r r, h, w] -> [..., C, h r, w r], of what is not tokens."""
    operand, r = _first(args), outcome.over["times"]
    *lead, _, high, wide = map(features, operand.layout)
    lead_shape, channels = (-1, *lead), features(outcome.layouts[0][-3])
    n = len(lead_shape)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    text = (
        f"{operand.name}.reshape({(*lead_shape, channels, r, r, high, wide)})"
        f".permute({order}).reshape({(-1, *map(features, outcome.layouts[0]))})"
    )
    return text, "shuffle", [operand.name]


def _unshuffle(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    """The inverse."""
    operand, r = _first(args), outcome.over["times"]
    assert isinstance(r, int)
    *lead, channels, high, wide = map(features, operand.layout)
    lead_shape = (-1, *lead)
    n = len(lead_shape)
    order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    text = (
        f"{operand.name}.reshape({(*lead_shape, channels, high // r, r, wide // r, r)})"
        f".permute({order}).reshape({(-1, *map(features, outcome.layouts[0]))})"
    )
    return text, "shuffle", [operand.name]


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
    return text, "conv", [_variable(found)]


def _einsum(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams, equation = writer.streams[node.name, 0], str(args["equation"]).replace(" ", "")
    inputs, _, output = equation.partition("->")
    operands = args["tensors"]
    assert isinstance(operands, list)
    letters, found = [], []
    for own, operand in zip(inputs.split(","), operands, strict=True):
        name = writer.rows(operand, streams)
        letters.append(own if name.startswith("c.") else f"Z{own}")
        found.append(name)
    text = f"torch.einsum({','.join(letters) + '->Z' + output!r}, {', '.join(found)})"
    return text, "einsum", list(map(_variable, found))


def _dense(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    """Sample by sample; numbers that depend on sizes are worked out of those of the sample."""
    reads: list[str] = []
    fitted = _fitted(writer, node)

    def shown(given: object, path: Path) -> str:
        if isinstance(given, Operand):
            found = _several(writer, given)
            reads.append(found.partition("[")[0])
            return found
        if isinstance(given, list):
            return "[{}]".format(", ".join(shown(one, (*path, i)) for i, one in enumerate(given)))
        if path in fitted:
            return fitted[path].python("at.lengths[i]")
        return constant(given)

    texts = {name: shown(given, (name,)) for name, given in args.items()}
    text = called(node, texts).replace("aten.view.default", "aten.reshape.default")
    return f"[{text} for i in range(len(at.lengths))]", "dense", reads


def _several(writer: Writer, operand: Operand) -> str:
    """Of branch i, in the layout of the graph."""
    value = operand.value
    if value.place:
        if value.name not in writer.sized:
            writer.program.constants.add(value.name)
            return f"c.{value.name}"
        return f"at.place({value.name!r}, i)"
    if value.dense:
        return f"{operand.name}[i]"
    streams = writer.streams[value.name, value.index]
    dims = Recipe.of(operand.layout).dims
    text = f"at.whole({operand.name}, {streams!r}, {dims!r})"
    return writer.once(("whole", operand.name), text, operand.name, ()) + "[i]"


def _fitted(writer: Writer, node: Node) -> dict[Path, Expression]:
    """Of the numbers among the arguments of a node, those that depend on sizes."""
    found: dict[Path, Expression] = {}
    for path, several in writer.aligned.moving[node.name].items():
        expression = fit(several, writer.lengths)
        if expression is None:
            raise Unlabelled(f"{node.name}: {list(several)} are nothing of the sizes")
        found[path] = expression
    return found


def _first(args: Args) -> Operand:
    return next(one for one in args.values() if isinstance(one, Operand))


def _full(given: object) -> list[Operand]:
    """Those that are not empty."""
    assert isinstance(given, list)
    return [one for one in given if 0 not in one.value.shape]


def _variable(text: str) -> str:
    return text.partition(".reshape")[0].partition("[")[0]


def _count(streams: Streams) -> str:
    return f"at.count({streams!r})"


WAYS: Mapping[str, Callable[[Writer, Node, Args, Outcome], Written]] = {
    "same": _same,
    "keep": _keep,
    "shape": _shape,
    "order": _order,
    "spread": _spread,
    "cat": _cat,
    "linear": _linear,
    "patch": _patch,
    "attend": _attend,
    "join": _join,
    "take": _take,
    "replace": _replace,
    "repeat": _repeat,
    "interleave": _interleave,
    "cast": _cast,
    "copy": _copy,
    "scatter": _scatter,
    "outer": _outer,
    "fill": _fill,
    "shuffle": _shuffle,
    "unshuffle": _unshuffle,
    "conv": _conv,
    "einsum": _einsum,
    "dense": _dense,
}
