"""From a labelled graph to operations on rows.

An operand [a, b, c] of the graph lies on rows as [R, a', b', c']: R rows, or as many as there are
modulation rows for what is one for a whole sample, and of each dimension what is not tokens. Views
and permutations of tokens thus disappear, and everything token-wise is the same operator as before,
over all tokens of all samples at once. What depends on sizes and weights alone is looked up
(`Frame.place`); what mixes tokens goes through the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from torch.fx import Node

from musiva.compiler.call import Value
from musiva.compiler.export import Aligned, arguments_of, is_item, shapes_of
from musiva.compiler.flow import Flow
from musiva.compiler.labels import Joint, Layout, Unlabelled, features, tokens
from musiva.compiler.operands import variable
from musiva.compiler.program import (
    Args,
    Number,
    Op,
    Operand,
    Program,
    Recipe,
    Streams,
    path_of,
)
from musiva.compiler.sizes import Expression, fit
from musiva.compiler.ways import WAYS

__all__ = ["Writer", "to_rows"]


def to_rows(
    aligned: Aligned,
    flow: Flow,
    streams: Mapping[str, str],
    sized: frozenset[str],
    lengths: Sequence[Mapping[str, int]],
) -> Program:
    """streams: the stream of each token axis. sized: places that depend on sizes. lengths: of token
    axes in each graph. Raises Unlabelled where an operation has no form on rows.
    """
    return Writer(aligned, flow, streams, sized, lengths).write()


class Writer:
    def __init__(
        self,
        aligned: Aligned,
        flow: Flow,
        streams: Mapping[str, str],
        sized: frozenset[str],
        lengths: Sequence[Mapping[str, int]],
    ) -> None:
        self.aligned = aligned
        self.exported = aligned.graphs[0]
        self.lengths = lengths
        self.flow = flow
        self.stream_of = dict(streams)
        self.sized = sized
        self.program = Program()
        self._parameters = self.exported.parameters
        # Of variables that were looked up or gathered for rows: each once.
        self._made: dict[tuple[object, ...], str] = {}
        # Variables that have one row, whatever the pack.
        self.single: set[str] = set()
        # Sites that are taken.
        self._sites: set[str] = set()
        # Of the operation that is being written.
        self._site = ""
        # Whose rows a value has, by name of node and index.
        self.streams: dict[tuple[str, int], Streams] = {}

    def write(self) -> Program:
        for name, node in self.exported.inputs.items():
            if node in self.exported.data:
                (value,) = self.flow.values[node]
                self.streams[node, 0] = self.streams_of(value.layout, value.along)
                self.program.features[node] = tuple(map(features, value.layout))
                at = self.streams[node, 0], Recipe.of(value.layout)
                self.program.inputs[name] = (node, *at)
        for node in self.exported.body:
            self._node(node)
        for node in self.exported.outputs:
            value = self.flow.values[node.name][0]
            key = value.name, value.index
            at = self.streams.get(key, ()), Recipe.of(value.layout)
            self.program.outputs.append((node.name, *at))
        return self.program

    def streams_of(self, layout: Layout, along: frozenset[str]) -> Streams:
        """Whose rows: those of the dimension with tokens; of what repeats them, none. A stream that
        is there twice counts as two.
        """
        joint = next((label for label in layout if isinstance(label, Joint)), None)
        if joint is None:
            names = (name for label in layout for name in tokens(label) if name in along)
            return tuple(dict.fromkeys(map(self._stream, names)))
        found: list[str] = []
        for part in joint.parts:
            name = own = self._stream(part[0].name)
            while name in found:
                name += "~"
            if name != own:
                self.program.copies[name] = own
            found.append(name)
        return tuple(found)

    def _stream(self, axis: str) -> str:
        if axis not in self.stream_of:
            raise Unlabelled(f"{axis} is of no stream")
        return self.stream_of[axis]

    def _node(self, node: Node) -> None:
        outcome = self.flow.outcomes[node.name]
        path = path_of(node)
        if is_item(node):
            source, index = node.args
            assert isinstance(source, Node)
            (value,) = self.flow.values[node.name]
            text = f"{source.name}[{index}]"
            if value.dense:
                text = f"[one[{index}] for one in {source.name}]"
            streams = self.streams[value.name, value.index]
            self.program.features[node.name] = tuple(map(features, value.layout))
            kind = "dense" if value.dense else "item"
            self._add(node.name, text, kind, (source.name,), streams, path)
            return
        args = self._arguments(node)
        if outcome.way == "attend":
            self._learnt(args["query"])
        values = self.flow.values[node.name]
        for value in values if outcome.way != "join" else ():
            self.streams[node.name, value.index] = self.streams_of(value.layout, value.along)
        self.program.features[node.name] = tuple(map(features, values[0].layout))
        write = WAYS[outcome.way]
        text, kind, reads = write(self, node, args, outcome)
        reads = [name for name in reads if name]
        own = [name for name in reads if not name.startswith("c.")]
        if own and self.single.issuperset(own):
            self.single.add(node.name)
        op = self._add(node.name, text, kind, reads, self.streams[node.name, 0], path)
        op.site, self._site = self._site, ""
        op.detail = outcome.mixes or ""

    def _add(
        self, out: str, text: str, kind: str, reads: Sequence[str], streams: Streams, path: str
    ) -> Op:
        self.program.ops.append(Op(out, text, kind, tuple(reads), streams, path))
        return self.program.ops[-1]

    def _arguments(self, node: Node) -> Args:
        """By name, in the order of the schema, tensors as `Value` with what they turned out to
        be.
        """
        settled = self.flow.settled[node.name]

        def seen(given: object) -> object:
            if isinstance(given, Node):
                value = self.flow.values[given.name][0]
                layout = settled.get((value.name, value.index), value.layout)
                return Operand(given.name, value, layout)
            if isinstance(given, list | tuple):
                return [seen(one) for one in given]
            return given

        return {name: seen(given) for name, given in arguments_of(node).items()}

    # Operands on rows.

    def rows(self, operand: Operand, streams: Streams, rank: int | None = None) -> str:
        """The variable of an operand on the rows of these streams (or one for a sample, if there
        are none), with so many dimensions.
        """
        value, layout = operand.value, operand.layout
        key = value.name, value.index
        if value.place:
            if value.name not in self.sized and not any(map(tokens, layout)):
                self.program.constants.add(value.name)
                return f"c.{value.name}"
            own = self.streams_of(layout, frozenset(n for x in layout for n in tokens(x)))
            return self._aligned(self._place(value, layout, own), layout, own, streams, rank)
        own = self.streams[key]
        if value.dense:
            own = self.streams_of(layout, frozenset(n for x in layout for n in tokens(x)))
            name = self._laid(operand, own)
        else:
            # What was repeated along tokens without being seen to be: once is enough.
            pairs = list(zip(value.layout, layout, strict=True))
            once = [features(new) < features(old) for old, new in pairs]
            places = ", ".join([":", *(":1" if cut else ":" for cut in once)])
            name = f"{operand.name}[{places}]" if any(once) else operand.name
        return self._aligned(name, layout, own, streams, rank)

    def _aligned(
        self, name: str, layout: Layout, own: Streams, streams: Streams, rank: int | None
    ) -> str:
        if own != streams and own:
            raise Unlabelled(f"rows of {own} meet rows of {streams}")
        if streams and not own and name not in self.single:
            name = self.once(
                ("gather", name, streams), f"at.gather({name}, {streams!r})", name, streams
            )
        if rank is not None and rank > len(layout):
            shape = (-1, *[1] * (rank - len(layout)), *map(features, layout))
            name = f"{name}.reshape({shape})"
        return name

    def once(self, key: tuple[object, ...], text: str, read: str, streams: Streams) -> str:
        """read: the text of what it is made of."""
        if key not in self._made:
            read = variable(read)
            name = re.sub(r"\W+", "_", read.removeprefix("c.")).strip("_") or str(key[0])
            out = self._name(name)
            self._add(out, text, str(key[0]), (read,) if read else (), streams, "")
            self._made[key] = out
        return self._made[key]

    def _name(self, base: str) -> str:
        """Of a variable that is no node."""
        count = len(self._made)
        while f"{base}_{count}" in self.exported.nodes:
            count += len(self.exported.nodes)
        return f"{base}_{count}"

    def extents(self, value: Value) -> list[str]:
        """Of each dimension of a tensor of branch i, as expressions. Raises Unlabelled."""
        return [one.python("at.lengths[i]") for one in self.expressions(value)]

    def expressions(self, value: Value) -> list[Expression]:
        """Of each dimension of a tensor, in the sizes of a sample. Raises Unlabelled."""
        graphs, names = self.aligned.graphs, self.aligned.names
        shapes = []
        for graph, own in zip(graphs, names, strict=True):
            (mine,) = (node for node, name in own.items() if name == value.name)
            shapes.append(shapes_of(graph.nodes[mine])[value.index])
        extents = enumerate(zip(*shapes, strict=True))
        return [self.fitted(n, Number(value.name, (dim,), value.index)) for dim, n in extents]

    def fitted(self, values: Sequence[int], number: Number) -> Expression:
        """A number that has these values in the graphs, in the sizes of a sample; where it is
        nothing of them, by a name of its own. Raises Unlabelled where values decide.
        """
        expression = fit(values, self.lengths)
        if expression is not None:
            return expression
        if -1 in values:
            raise Unlabelled(f"{number.node}: its size is decided by values")
        return Expression(((Fraction(1), (self.named(number),)),))

    def named(self, number: Number) -> str:
        """The name of a number that is looked up at each size."""
        of = "" if number.index is None else f"[{number.index}]"
        name = f"{number.node}{of}.{'.'.join(map(str, number.path))}"
        self.program.numbers[name] = number
        return name

    def own_stream(self, value: Value, dim: int) -> str:
        """What was no tokens before gets a stream of its own, as long as it is in each sample."""
        stream = self.stream_of.setdefault(value.name, value.name)
        self.program.extras[stream] = self.expressions(value)[dim].python("n")
        return stream

    def _learnt(self, query: object) -> None:
        """Queries may be tokens that no sample brings."""
        assert isinstance(query, Operand)
        dim = len(query.layout) - 2
        if tokens(query.layout[dim]) == (query.value.name,):
            self.own_stream(query.value, dim)

    def site(self, path: str) -> str:
        """A name of its own for what a module does there."""
        name, again = path, 1
        while name in self._sites:
            again += 1
            name = f"{path}#{again}"
        self._sites.add(name)
        self._site = name
        return name

    def layer(self, weight: str, bias: str | None, path: str) -> str:
        """A site, named by the parameter where there is one."""
        self.program.constants |= {name for name in (weight, bias) if name}
        parameter = self._parameters.get(weight, path)
        name = self.site(parameter.removesuffix(".weight"))
        self.program.layers[name] = weight, bias
        return name

    def _place(self, value: Value, layout: Layout, streams: Streams) -> str:
        key = ("place", value.name, layout)
        if key not in self._made:
            out = self._name(value.name)
            text = f"at.places(run, {value.name!r}, {streams!r}, {Recipe.of(layout).dims!r})"
            self._add(out, text, "place", (), streams, "")
            self._made[key] = out
        return self._made[key]

    def _laid(self, operand: Operand, streams: Streams) -> str:
        recipe = Recipe.of(operand.layout)
        text = f"at.lay({operand.name}, {streams!r}, {recipe.dims!r})"
        return self.once(("lay", operand.name, recipe), text, operand.name, streams)
