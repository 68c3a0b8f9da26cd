"""How an operation of the graph is written on rows, in each of the ways that rules name.

Each function gives the text, its kind, and the variables that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch.fx import Node

from musiva.compiler.call import Outcome
from musiva.compiler.flow import op_of
from musiva.compiler.labels import features
from musiva.compiler.operands import Written, count, first, full, variable
from musiva.compiler.program import Args, Operand, called, constant
from musiva.compiler.ways_mixing import MIXING

if TYPE_CHECKING:
    from musiva.compiler.rows import Writer

__all__ = ["WAYS"]


def _same(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams = writer.streams[node.name, 0]
    if _changes_nothing(node):
        return _keep(writer, node, args, outcome)
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
            reads.append(variable(found))
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
    name = op_of(node)
    if name in ("bmm", "mm"):
        # Rows are a dimension more than these take.
        return f"{texts['self']} @ {texts['mat2']}", "matmul", reads
    if name == "addmm":
        product = f"{texts.get('alpha', 1)} * ({texts['mat1']} @ {texts['mat2']})"
        return f"{texts.get('beta', 1)} * {texts['self']} + {product}", name, reads
    return called(node, texts), name, reads


def _changes_nothing(node: Node) -> bool:
    """Times or over 1, in the same type."""
    if op_of(node) not in ("mul", "div") or len(node.args) != 2 or node.kwargs:
        return False
    source, number = node.args
    if not isinstance(source, Node) or not isinstance(number, int | float) or number != 1:
        return False
    return source.meta["val"].dtype == node.meta["val"].dtype


def _keep(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(first(args), writer.streams[node.name, 0])
    return found, "keep", [variable(found)]


def _shape(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(first(args), writer.streams[node.name, 0])
    shape = (-1, *map(features, outcome.layouts[0]))
    return f"{found}.reshape({shape})", "shape", [variable(found)]


def _order(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(first(args), writer.streams[node.name, 0])
    order = outcome.over["order"]
    assert isinstance(order, tuple)
    return f"{found}.permute({(0, *(dim + 1 for dim in order))})", "order", [variable(found)]


def _spread(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams, out = writer.streams[node.name, 0], outcome.layouts[0]
    found = writer.rows(first(args), streams, len(out))
    return f"{found}.expand({(-1, *map(features, out))})", "spread", [variable(found)]


def _cat(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams = writer.streams[node.name, 0]
    dims = outcome.over["dims"]
    assert isinstance(dims, Mapping)
    dim = dims["dim"]
    reads, parts = [], []
    for one in full(args["tensors"]):
        found = writer.rows(one, streams)
        reads.append(variable(found))
        shape = list(map(features, outcome.layouts[0]))
        if op_of(node) == "stack":
            del shape[dim]
        else:
            shape[dim] = features(one.layout[dim])
        parts.append(f"{found}.expand(({count(streams)}, {', '.join(map(str, shape))}))")
    return f"torch.{op_of(node)}([{', '.join(parts)}], {dim + 1})", "cat", reads


def _alone(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    """One of a list of one."""
    ((operand,),) = (full(one) for one in args.values() if isinstance(one, list))
    found = writer.rows(operand, writer.streams[node.name, 0])
    shape = (-1, *map(features, outcome.layouts[0]))
    return f"{found}.reshape({shape})", "shape", [variable(found)]


def _repeat(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    streams, rank = writer.streams[node.name, 0], len(outcome.layouts[0])
    found = writer.rows(first(args), streams, rank)
    times = outcome.over["times"]
    assert isinstance(times, tuple)
    return f"{found}.repeat({(1, *times)})", "repeat", [variable(found)]


def _interleave(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(first(args), writer.streams[node.name, 0])
    dim, times = outcome.over["dim"], outcome.over["times"]
    assert isinstance(dim, int)
    return f"{found}.repeat_interleave({times}, {dim + 1})", "repeat", [variable(found)]


def _cast(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    found = writer.rows(first(args), writer.streams[node.name, 0])
    return f"{found}.to({node.meta['val'].dtype})", "cast", [variable(found)]


def _copy(writer: Writer, node: Node, args: Args, outcome: Outcome) -> Written:
    source, out = args["src"], outcome.layouts[0]
    assert isinstance(source, Operand)
    found = writer.rows(source, writer.streams[node.name, 0], len(out))
    if found.startswith("c."):
        writer.single.add(node.name)
    shape = (1 if found.startswith("c.") else -1, *map(features, out))
    return f"{found}.expand({shape}).to({node.meta['val'].dtype})", "cast", [variable(found)]


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
        texts.append(f"{found}.expand(({count(streams)}, {', '.join(map(str, shape))}))")
        reads.append(variable(found))
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
    return f"{found[0]}.unsqueeze(-1) * {found[1]}.unsqueeze(-2)", "mul", [*map(variable, found)]


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
    operand, r = first(args), outcome.over["times"]
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
    operand, r = first(args), outcome.over["times"]
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
    return text, "einsum", list(map(variable, found))


WAYS: Mapping[str, Callable[[Writer, Node, Args, Outcome], Written]] = {
    "same": _same,
    "keep": _keep,
    "shape": _shape,
    "order": _order,
    "spread": _spread,
    "cat": _cat,
    "alone": _alone,
    "repeat": _repeat,
    "interleave": _interleave,
    "cast": _cast,
    "copy": _copy,
    "scatter": _scatter,
    "outer": _outer,
    "fill": _fill,
    "shuffle": _shuffle,
    "unshuffle": _unshuffle,
    "einsum": _einsum,
    **MIXING,
}
