"""What depends on sizes and weights alone: positions, rotary tables, masks of all words.

Where graphs of several sizes differ in nothing but numbers that are expressions in the sizes, the
operations of the first graph give the value at any size. What a model works out in Python or numpy
is a constant of each graph, and takes an export at the size that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import Node

from musiva.compiler.export import Aligned, Exported, Path
from musiva.compiler.sizes import Expression, fit
from musiva.core.errors import CannotCapture

__all__ = ["Prologue", "evaluate", "learn"]

Lengths = Mapping[str, int]


@dataclass(slots=True)
class Prologue:
    """How to work out values at any size. wanted: names of nodes of the first graph that can be;
    numbers: of nodes, by name and place among the arguments, those that depend on sizes.
    """

    exported: Exported
    wanted: frozenset[str]
    numbers: Mapping[str, Mapping[Path, Expression]] = field(default_factory=dict)

    def values(self, known: Mapping[str, Tensor], sizes: Lengths) -> dict[str, Tensor]:
        """known: parameters, buffers and arguments, by name of placeholder."""
        return run(self.exported, self.wanted, known, self._at(sizes))

    def _at(self, sizes: Lengths) -> Callable[[Node], tuple[object, object]]:
        def arguments(node: Node) -> tuple[object, object]:
            own = self.numbers.get(node.name)
            if own is None:
                return node.args, node.kwargs
            values = {path: expression.value(sizes) for path, expression in own.items()}
            return _replaced(node.args, values, ("args",)), _replaced(
                dict(node.kwargs), values, ("kwargs",)
            )

        return arguments


def learn(aligned: Aligned, wanted: Sequence[str], sizes: Sequence[Lengths]) -> Prologue:
    """A prologue for as many of these values as have one."""
    first, others = aligned.graphs[0], aligned.graphs[1:]
    inverse = [{name: own for own, name in names.items()} for names in aligned.names]
    numbers: dict[str, dict[Path, Expression]] = {}
    found: set[str] = set()
    for name in wanted:
        nodes = [graph.nodes[own[name]] for graph, own in zip(aligned.graphs, inverse, strict=True)]
        own: dict[str, dict[Path, Expression]] = {}
        if _match(nodes, [first, *others], sizes, own, set()):
            numbers |= own
            found.add(name)
    return Prologue(first, frozenset(found), numbers)


def evaluate(
    exported: Exported, wanted: Sequence[str], known: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Values of nodes of a graph at its own size. known: as in `Prologue.values`."""
    return run(exported, frozenset(wanted), known, lambda node: (node.args, node.kwargs))


def run(
    exported: Exported,
    wanted: frozenset[str],
    known: Mapping[str, Tensor],
    arguments: Callable[[Node], tuple[object, object]],
) -> dict[str, Tensor]:
    """Raises CannotCapture where a value is not given."""
    values: dict[str, object] = {**exported.constants, **known}
    needed, stack = set(), [exported.nodes[name] for name in wanted]
    while stack:
        node = stack.pop()
        if node.name not in needed:
            needed.add(node.name)
            stack += node.all_input_nodes
    for node in exported.program.graph.nodes:
        if node.name not in needed or node.name in values:
            continue
        if node.op != "call_function":
            raise CannotCapture(f"{node.name}: its value is not known")
        given = _put(arguments(node), values)
        assert isinstance(given, tuple)
        args, kwargs = given
        assert callable(node.target)
        values[node.name] = node.target(*args, **kwargs)
    return {name: values[name] for name in wanted}  # pyright: ignore[reportReturnType]


def _put(given: object, values: Mapping[str, object]) -> object:
    """Arguments with values for nodes."""
    if isinstance(given, Node):
        return values[given.name]
    if isinstance(given, Mapping):
        return {name: _put(one, values) for name, one in given.items()}
    if isinstance(given, list | tuple):
        return type(given)(_put(one, values) for one in given)
    return given


def _match(
    nodes: Sequence[Node],
    graphs: Sequence[Exported],
    sizes: Sequence[Lengths],
    numbers: dict[str, dict[Path, Expression]],
    seen: set[str],
) -> bool:
    """Whether these nodes, one of each graph, are the same but for sizes."""
    first = nodes[0]
    if first.name in seen:
        return True
    seen.add(first.name)
    if len({(node.op, str(node.target)) for node in nodes}) > 1:
        return first.op == "placeholder" and _same_constant(nodes, graphs)
    if first.op == "placeholder":
        return _same_constant(nodes, graphs)
    leaves = [dict(_leaves((node.args, node.kwargs))) for node in nodes]
    if len({tuple(one) for one in leaves}) > 1:
        return False
    own: dict[Path, Expression] = {}
    for path, value in leaves[0].items():
        given = [one[path] for one in leaves]
        if isinstance(value, Node):
            if not all(isinstance(one, Node) for one in given):
                return False
            if not _match(given, graphs, sizes, numbers, seen):  # pyright: ignore
                return False
        elif any(one != value for one in given):
            if not all(isinstance(one, int) for one in given):
                return False
            expression = fit(given, sizes)  # pyright: ignore
            if expression is None:
                return False
            own[path] = expression
    if own:
        numbers[first.name] = own
    return True


def _same_constant(nodes: Sequence[Node], graphs: Sequence[Exported]) -> bool:
    """Parameters and arguments are given; what a graph brings has to be the same in all."""
    values = [graph.constants.get(node.name) for node, graph in zip(nodes, graphs, strict=True)]
    if all(value is None for value in values):
        return len({node.name for node in nodes}) == 1
    first = values[0]
    return isinstance(first, Tensor) and all(
        isinstance(value, Tensor) and value.shape == first.shape and torch.equal(value, first)
        for value in values
    )


def _leaves(given: object, path: Path = ()) -> list[tuple[Path, object]]:
    """args lie under "args", kwargs under "kwargs"."""
    if not path:
        args, kwargs = given  # pyright: ignore
        return [*_leaves(args, ("args",)), *_leaves(dict(kwargs), ("kwargs",))]
    if isinstance(given, Mapping):
        return [leaf for name, one in given.items() for leaf in _leaves(one, (*path, name))]
    if isinstance(given, list | tuple):
        return [leaf for i, one in enumerate(given) for leaf in _leaves(one, (*path, i))]
    return [(path, given)]


def _replaced(given: object, values: Mapping[Path, int], path: Path) -> object:
    if isinstance(given, Mapping):
        return {name: _replaced(one, values, (*path, name)) for name, one in given.items()}
    if isinstance(given, list | tuple):
        return type(given)(_replaced(one, values, (*path, i)) for i, one in enumerate(given))
    return values.get(path, given)
