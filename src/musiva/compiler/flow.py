"""Dimension flow: the labels of every value of a graph, and what each operation does with tokens.

One pass forward, a rule for each operator (`musiva.compiler.rules`). Where an operator has no rule,
or the rule does not hold for the case, the operation runs sample by sample in the layout of the
graph, and the pass goes on behind it with dimensions that are not known until they meet others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import starmap

from torch.fx import Graph, Node

from musiva.compiler.arguments import Argument, size_of
from musiva.compiler.call import Call, Outcome, Value
from musiva.compiler.export import Path, is_item, shapes_of
from musiva.compiler.labels import (
    Axis,
    Label,
    Layout,
    Unlabelled,
    extent,
    extents,
    is_unknown,
    tokens,
    unknown,
)
from musiva.compiler.rules import RULES

__all__ = ["Flow", "flow", "layout_of", "op_of"]

Flags = Sequence[Sequence[bool]]
Moving = Mapping[Path, Sequence[int | float]]


@dataclass(slots=True)
class Flow:
    """By name of node: values, one for each tensor that it returns; outcomes of rules; layouts of
    operands as they turned out (by name and index); why an operation runs sample by sample.
    """

    values: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    settled: dict[str, Mapping[tuple[str, int], Layout]] = field(default_factory=dict)
    dense: dict[str, str] = field(default_factory=dict)


def layout_of(
    argument: Argument,
    sizes: Mapping[str, int],
    places: Mapping[str, int],
    fixed: Collection[str] = (),
) -> Layout:
    """Of an argument. sizes: the extent of each name. places: how many positions along an axis make
    a token, where it is known. fixed: names of which there is one size only.
    """
    layout: list[Label] = []
    for dim in argument.dims:
        times, names = argument.factors(dim)
        label = [Axis(name, size_of(name, sizes), True, name in fixed) for name in names]
        if not names and times > 1:
            label = [Axis("in", times)]
        elif names and times > 1:
            # The number belongs to the first name.
            inner = places.get(names[0], 1)
            label[0] = replace(label[0], extent=label[0].extent * times // inner)
            label[1:1] = [Axis("place", inner)] if inner > 1 else []
        layout.append(tuple(label))
    return tuple(layout)


def flow(
    graph: Graph,
    inputs: Mapping[str, Layout],
    data: frozenset[str],
    varying: Mapping[str, Flags],
    moving: Mapping[str, Moving],
    open_masks: frozenset[str] = frozenset(),
    blind: frozenset[str] = frozenset(),
) -> Flow:
    """Label a graph. inputs: layouts of what a sample brings, by name of placeholder. data: all
    nodes that depend on that. varying: of each node and each tensor that it returns, which
    dimensions depend on sizes; moving: which numbers among its arguments do. open_masks: attention
    masks that mask nothing. blind: nodes of which extents say nothing. Raises Refine where
    positions of an input turn out to be places within tokens.
    """
    found, company = Flow(), _company(inputs.values())
    for node in graph.nodes:
        if node.op == "output":
            continue
        if node.name in inputs:
            layout = inputs[node.name]
            along = frozenset(name for label in layout for name in tokens(label))
            found.values[node.name] = (Value(node.name, layout, along),)
        elif node.name not in data:
            shapes = shapes_of(node)
            flags = varying.get(node.name, [[False] * len(shape) for shape in shapes])
            layouts = map(_unknown, shapes, flags)
            found.values[node.name] = tuple(
                Value(node.name, layout, index=i, place=True) for i, layout in enumerate(layouts)
            )
        elif is_item(node):
            source, index = node.args
            found.values[node.name] = (found.values[source.name][index],)
            found.outcomes[node.name] = Outcome((), "item")
        else:
            call = Call(
                op_of(node),
                _arguments(node, found),
                shapes_of(node),
                varying[node.name],
                moving[node.name],
                open_masks,
                company,
            )
            _step(node, call, found, blind=node.name in blind)
    return found


def _company(layouts: Iterable[Layout]) -> dict[str, frozenset[str]]:
    """By token axis, those that it lies with in what a sample brings."""
    found: dict[str, frozenset[str]] = {}
    for layout in layouts:
        together = frozenset(name for label in layout for name in tokens(label))
        together = together.union(*(found.get(name, frozenset()) for name in together))
        found |= dict.fromkeys(together, together)
    return found


def op_of(node: Node) -> str:
    """`softmax` of aten.softmax.int."""
    return str(node.target).split(".")[1]


def _step(node: Node, call: Call, found: Flow, *, blind: bool) -> None:
    try:
        outcome = _ruled(call)
    except Unlabelled as error:
        found.dense[node.name] = str(error)
        call.settled.clear()
        several = zip(call.shapes, call.varying, strict=True)
        layouts = tuple(_unknown(*both) if blind else _guessed(call, *both) for both in several)
        outcome = Outcome(layouts, "dense", mixes=str(error))
    along = call.along if outcome.along is None else outcome.along
    found.outcomes[node.name] = outcome
    found.settled[node.name] = dict(call.settled)
    found.values[node.name] = tuple(
        Value(node.name, layout, along, i, dense=outcome.way == "dense")
        for i, layout in enumerate(outcome.layouts)
    )


def _ruled(call: Call) -> Outcome:
    if call.op not in RULES:
        raise Unlabelled(f"{call.op} has no rule")
    outcome = RULES[call.op](call)
    for layout, shape in zip(outcome.layouts, call.shapes, strict=True):
        if extents(layout) != shape:
            raise Unlabelled(f"{call.op}: its rule says {extents(layout)}, it returns {shape}")
    replaced = outcome.over.get("with", {})
    assert isinstance(replaced, Mapping)
    for path, values in call.moving.items() if outcome.way not in ("dense", "attend") else ():
        # Places and extents follow from labels; what is computed with does not.
        if isinstance(values[0], float) or (outcome.way == "same" and path[0] not in replaced):
            raise Unlabelled(f"{call.op}: {path[0]} depends on the size: {list(values)}")
    for value in call.operands:
        left = call.settled.get((value.name, value.index), value.layout)
        # What only repeats a value may stay unknown; what lies sample by sample may not.
        if (value.dense or value.place) and any(map(is_unknown, left)):
            raise Unlabelled(f"{call.op}: it cannot be told what dimensions of {value.name} are")
    return outcome


def _unknown(shape: Sequence[int], flags: Sequence[bool]) -> Layout:
    """Where only a shape is known."""
    return tuple(starmap(unknown, zip(shape, flags, strict=True)))


def _guessed(call: Call, shape: Sequence[int], flags: Sequence[bool]) -> Layout:
    """Where only a shape is known, but a dimension that depends on sizes is as long as one kind of
    dimension among the operands: no other extents are the same at any size.
    """
    layout = list(_unknown(shape, flags))
    known = [label for value in call.operands for label in value.layout if tokens(label)]
    for i, size in enumerate(shape):
        alike = [label for label in known if extent(label) == size and flags[i]]
        if alike and len({tokens(label) for label in alike}) == 1:
            layout[i] = alike[0]
    return tuple(layout)


def _arguments(node: Node, found: Flow) -> dict[str, object]:
    schema = node.target._schema  # pyright: ignore
    arguments: dict[str, object] = {}
    for i, parameter in enumerate(schema.arguments):
        if i < len(node.args):
            given = node.args[i]
        elif parameter.name in node.kwargs:
            given = node.kwargs[parameter.name]
        else:
            given = parameter.default_value if parameter.has_default_value() else None
        arguments[parameter.name] = _seen(given, found)
    return arguments


def _seen(given: object, found: Flow) -> object:
    if isinstance(given, Node):
        return found.values[given.name][0]
    if isinstance(given, Sequence) and not isinstance(given, str):
        return [_seen(one, found) for one in given]
    return given
