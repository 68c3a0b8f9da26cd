"""What depends on sizes and weights alone: positions, rotary tables, masks of all words.

It is Python text, an operation of the graph a line, over tensors that are looked up by name:
weights of the module, arguments that follow from sizes, and what a graph brings along. So nothing
that was made of weights is kept, and neither graph nor class is needed to work it out.

Where graphs of several sizes differ in nothing but numbers that are expressions in the sizes, the
operations of the first graph give the value at any size. What a model works out in Python or numpy
is a constant of each graph, and takes an export at the size that is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Node

from musiva.compiler.arguments import Sizes
from musiva.compiler.export import Aligned, Exported, Path, arguments_of, is_item
from musiva.compiler.program import called, constant, path_of
from musiva.compiler.sizes import Expression, Ratio, fit, fit_float
from musiva.compiler.source import Function, compiled
from musiva.core.errors import CannotCapture

__all__ = ["Learnt", "Prologue", "Weights", "Writer", "learn"]

Numbers = Mapping[str, Mapping[Path, Expression | Ratio]]
HEAD = '"""{title}: what depends on sizes and weights alone."""'
# What functions are called with, in this order: tensors by name, and sizes.
PARAMETERS = ("weights", "given", "kept", "sizes")
# Where functions of Python lie that a graph may call: on sizes that values decide.
PYTHON = ("builtins", "math", "operator", "torch")
NOT_FINITE = re.compile(r"-?(inf|nan)")
LITERALS = (str, int, float, complex, torch.dtype, torch.layout, torch.memory_format)


@dataclass(frozen=True, slots=True)
class Prologue:
    """text: functions, each of values by name of node in the first graph. tensors: those that
    graphs bring along, by name of placeholder.
    """

    text: str = ""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def functions(self, title: str) -> dict[str, Function]:
        """By name; they are called with `weights`, `given`, `kept` (the tensors) and `sizes`."""
        return compiled(self.text, title)


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters and buffers of a module by name, as they are when they are looked up."""

    module: nn.Module

    def __getitem__(self, name: str) -> Tensor:
        owner, _, own = name.rpartition(".")
        return getattr(self.module.get_submodule(owner), own)


@dataclass(frozen=True, slots=True)
class Learnt:
    """wanted: names of nodes of the first graph whose values it gives at any size; numbers: of
    nodes, by name and place among the arguments, those that depend on sizes.
    """

    wanted: frozenset[str]
    numbers: Numbers


class Writer:
    """Functions of a graph as text. owned: names of the parameters and buffers of the module.

    weights: names of those that were written; tensors: what the graph brings along of what was.
    """

    def __init__(self, exported: Exported, owned: Collection[str]) -> None:
        self._exported, self._owned = exported, owned
        self._places = {name: i for i, name in enumerate(exported.nodes)}
        self._parameters, self._constants = exported.parameters, exported.constants
        self._given = {node: name for name, node in exported.inputs.items()}
        self._functions: list[str] = []
        self.weights: set[str] = set()
        self.tensors: dict[str, Tensor] = {}

    def prologue(self, title: str) -> Prologue:
        body = "\n\n".join(self._functions)
        imports = [f"import {name}\n" for name in PYTHON if re.search(rf"\b{name}\.", body)]
        if "whole(" in body:
            imports.append("\nfrom musiva.compiler.sizes import whole\n")
        head = f"{HEAD.format(title=title)}\n\n{''.join(imports)}"
        return Prologue(f"{head}\n\n{body}", self.tensors)

    def add(self, name: str, wanted: Mapping[str, str], numbers: Numbers | None = None) -> None:
        """A function that returns values of these nodes, by what they are called in the first
        graph. numbers: instead of those of this graph. Raises CannotCapture where a value is not
        known.
        """
        numbers = {} if numbers is None else numbers
        lines, path = [f"def {name}({', '.join(PARAMETERS)}):"], ""
        for node in self._behind(wanted.values()):
            if path_of(node) not in ("", path):
                path = path_of(node)
                lines.append(f"    # {path}")
            lines.append(f"    {node.name} = {self._call(node, numbers.get(node.name, {}))}")
        nodes = self._exported.nodes
        returned = [f"        {key!r}: {self._value(nodes[own])}," for key, own in wanted.items()]
        self._functions.append("\n".join([*lines, "    return {", *returned, "    }", ""]))

    def add_numbers(self, name: str, numbers: Mapping[str, int | float]) -> None:
        """A function that returns these."""
        body = [f"        {key!r}: {number!r}," for key, number in sorted(numbers.items())]
        self._functions.append("\n".join([f"def {name}():", "    return {", *body, "    }", ""]))

    def _weight(self, name: str) -> str | None:
        """Of the node of a parameter or buffer of the module, its name there."""
        owned = self._parameters.get(name)
        return owned if owned in self._owned else None

    def _behind(self, names: Collection[str]) -> list[Node]:
        """What has to be worked out for these, in order."""
        nodes = self._exported.nodes
        needed: set[str] = set()
        stack = [nodes[name] for name in names]
        while stack:
            node = stack.pop()
            if node.op == "call_function" and node.name not in needed:
                needed.add(node.name)
                stack += node.all_input_nodes
        return [nodes[name] for name in sorted(needed, key=self._places.__getitem__)]

    def _value(self, node: Node) -> str:
        if node.op == "call_function":
            return node.name
        weight = self._weight(node.name)
        if weight is not None:
            self.weights.add(weight)
            return f"weights[{weight!r}]"
        if node.name in self._constants:
            self.tensors[node.name] = self._constants[node.name]
            return f"kept[{node.name!r}]"
        if node.name in self._given and node.name not in self._exported.data:
            return f"given[{self._given[node.name]!r}]"
        raise CannotCapture(f"{node.name}: its value is not known")

    def _call(self, node: Node, numbers: Mapping[Path, Expression | Ratio]) -> str:
        texts = {name: self._text(one, (name,), numbers) for name, one in _arguments(node).items()}
        if is_item(node):
            source, index = texts.values()
            return f"{source}[{index}]"
        if isinstance(node.target, OpOverload):
            if set(texts) == {"self", "other"}:
                # They may be written with a sign between.
                texts = {name: f"({one})" if " " in one else one for name, one in texts.items()}
            return called(node, texts)
        # The one in Python and the one in C are the same.
        module = str(getattr(node.target, "__module__", "")).lstrip("_")
        if module not in PYTHON or node.kwargs:
            raise CannotCapture(f"{node.name}: {node.target} has no text")
        name = getattr(node.target, "__name__", "")
        return f"{module}.{name}({', '.join(texts.values())})"

    def _text(self, given: object, path: Path, numbers: Mapping[Path, Expression | Ratio]) -> str:
        if isinstance(given, Node):
            return self._value(given)
        if isinstance(given, list | tuple):
            inner = [self._text(one, (*path, i), numbers) for i, one in enumerate(given)]
            return f"[{', '.join(inner)}]"
        if path in numbers:
            return numbers[path].exactly("sizes")
        if isinstance(given, torch.device):
            return f"torch.device({str(given)!r})"
        if isinstance(given, float) and NOT_FINITE.fullmatch(repr(given)):
            return f"float({str(given)!r})"
        if given is not None and not isinstance(given, LITERALS):
            raise CannotCapture(f"{given!r} has no text")
        return constant(given)


def learn(aligned: Aligned, wanted: Sequence[str], sizes: Sequence[Sizes]) -> Learnt:
    """Of as many of these nodes as have the same operations at all sizes."""
    first, others = aligned.graphs[0], aligned.graphs[1:]
    inverse = [{name: own for own, name in names.items()} for names in aligned.names]
    numbers: dict[str, dict[Path, Expression | Ratio]] = {}
    found: set[str] = set()
    for name in wanted:
        nodes = [graph.nodes[own[name]] for graph, own in zip(aligned.graphs, inverse, strict=True)]
        own: dict[str, dict[Path, Expression | Ratio]] = {}
        if _match(nodes, [first, *others], sizes, own, set()):
            numbers |= own
            found.add(name)
    return Learnt(frozenset(found), numbers)


def _match(
    nodes: Sequence[Node],
    graphs: Sequence[Exported],
    sizes: Sequence[Sizes],
    numbers: dict[str, dict[Path, Expression | Ratio]],
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
    leaves = [dict(_leaves(_arguments(node))) for node in nodes]
    if len({tuple(one) for one in leaves}) > 1:
        return False
    own: dict[Path, Expression | Ratio] = {}
    for path, value in leaves[0].items():
        given = [one[path] for one in leaves]
        if isinstance(value, Node):
            if not all(isinstance(one, Node) for one in given):
                return False
            if not _match(given, graphs, sizes, numbers, seen):  # pyright: ignore
                return False
        elif any(one != value for one in given):
            kinds = {type(one) for one in given}
            if kinds not in ({int}, {float}):
                return False
            expression = (fit if kinds == {int} else fit_float)(given, sizes)  # pyright: ignore
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


def _arguments(node: Node) -> Mapping[str, object]:
    """By name; of what has no names for them, by number."""
    if isinstance(node.target, OpOverload):
        return arguments_of(node)
    return {**{str(i): one for i, one in enumerate(node.args)}, **node.kwargs}


def _leaves(given: object, path: Path = ()) -> list[tuple[Path, object]]:
    if isinstance(given, Mapping):
        return [leaf for name, one in given.items() for leaf in _leaves(one, (*path, name))]
    if isinstance(given, list | tuple):
        return [leaf for i, one in enumerate(given) for leaf in _leaves(one, (*path, i))]
    return [(path, given)]
