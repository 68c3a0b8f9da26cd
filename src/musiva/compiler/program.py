"""Programs on rows: operations as Python text, and what is shared by those that write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.fx import Node

from musiva.compiler.call import Value
from musiva.compiler.flow import op_of
from musiva.compiler.labels import Joint, Layout

__all__ = [
    "Args",
    "Number",
    "Op",
    "Operand",
    "Program",
    "Recipe",
    "Streams",
    "called",
    "constant",
    "path_of",
    "prune",
]

Streams = tuple[str, ...]
Args = dict[str, object]
# Operators that are written as Python writes them.
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a tensor of the graph lies on rows: of each dimension its axes, names of token axes and
    extents of others; what is not known only repeats, and is there once.
    """

    dims: tuple[tuple[str | int, ...], ...]

    @classmethod
    def of(cls, layout: Layout) -> Recipe:
        return cls(
            tuple(
                tuple(
                    axis.name if axis.token else axis.extent
                    for part in (label.parts if isinstance(label, Joint) else (label,))
                    for axis in part
                    if axis.token is not None
                )
                for label in layout
            )
        )


@dataclass(slots=True)
class Op:
    """`out = text`. reads: variables in the text. streams: whose rows they are, one after another;
    none for what is one for a whole sample. path: the module that it comes from. site: of what goes
    through the run; detail: in words, what it does with tokens.
    """

    out: str
    text: str
    kind: str
    reads: tuple[str, ...]
    streams: Streams
    path: str
    site: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Number:
    """One that depends on sizes in a way that is no expression: among the arguments of a node, at
    that path; or an extent (the path) of what it returns at that index.
    """

    node: str
    path: tuple[str | int, ...]
    index: int | None = None


@dataclass(slots=True)
class Program:
    """ops in order. constants: names of nodes that depend on weights alone. inputs: variable of
    each argument. outputs: variables, each with how it lies. convolutions: what their layers are
    called with, by name of layer. extras: streams beside those of inputs, with how many tokens a
    sample has of them, as an expression of its sizes `n`. copies: streams that are there twice, by
    the name of the second one. features: of each node's
    variable, the shape of what is on a row. layers: the weight and the bias of linear layers and
    convolutions, by site: names of constants. merged: sites of the layers that one of several is
    made of, by its site. numbers: by the names that expressions have for them, beside those of
    token axes.
    """

    ops: list[Op] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    inputs: dict[str, tuple[str, Streams, Recipe]] = field(default_factory=dict)
    outputs: list[tuple[str, Streams, Recipe]] = field(default_factory=list)
    convolutions: dict[str, Mapping[str, object]] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    features: dict[str, tuple[int, ...]] = field(default_factory=dict)
    layers: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    merged: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: dict[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor among the arguments of a node: the name of what is given, and its layout here."""

    name: str
    value: Value
    layout: Layout


def prune(program: Program) -> None:
    """Change a program to be without what nothing reads."""
    wanted, kept = {variable for variable, _, _ in program.outputs}, []
    for op in reversed(program.ops):
        if op.out in wanted:
            wanted.update(op.reads)
            kept.append(op)
    program.ops = kept[::-1]


def path_of(node: Node) -> str:
    """Of the module that an operation was traced in."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]).removeprefix("module.") if stack else ""


def constant(given: object) -> str:
    """A Python literal."""
    if isinstance(given, torch.dtype | torch.memory_format | torch.layout):
        return str(given)
    if isinstance(given, torch.device):
        return "at.device"
    return repr(given)


def called(node: Node, texts: Mapping[str, str]) -> str:
    """The call of an operator, arguments that are only allowed by name as such."""
    target, schema = node.target, node.target._schema  # pyright: ignore
    name = op_of(node)
    if name in INFIX and set(texts) == {"self", "other"}:
        return f"{texts['self']} {INFIX[name]} {texts['other']}"
    shown = []
    for parameter in schema.arguments:
        if parameter.name in texts:
            text = texts[parameter.name]
            positional = not parameter.kwarg_only and len(shown) == schema.arguments.index(
                parameter
            )
            shown.append(text if positional else f"{parameter.name}={text}")
    return f"torch.ops.{target}({', '.join(shown)})"
