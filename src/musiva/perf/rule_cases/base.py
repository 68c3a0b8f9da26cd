"""Calls of operators, and what experiments say of a rule for one (`musiva.compiler.probe`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch._ops import OpOverload

from musiva.compiler.call import Call, Outcome, Value
from musiva.compiler.export import Path, numbers
from musiva.compiler.labels import (
    Joint,
    Label,
    Layout,
    Product,
    Refine,
    Unlabelled,
    extents,
    features,
    is_unknown,
    tokens,
    unknown,
)
from musiva.compiler.probe import Finding, probe
from musiva.compiler.rules import RULES

__all__ = ["Case", "Kind", "Operand", "aten", "tokens_of", "violations"]

aten = torch.ops.aten
Kind = Literal["data", "place", "dense"]
# Ways in which a row keeps its elements.
VIEWS = ("keep", "shape", "order")


@dataclass(frozen=True, slots=True)
class Operand:
    """kind: what a sample brings; or a place, the same for all samples; or what lies sample by
    sample: of these two dimension flow knows extents only. along: the token axes along which it
    differs, all of its layout if None. is_open: a mask that masks nothing.
    """

    tensor: Tensor
    layout: Layout
    kind: Kind = "data"
    along: frozenset[str] | None = None
    is_open: bool = False

    def value(self, name: str) -> Value:
        """As dimension flow sees it."""
        along = tokens_of(self.layout) if self.along is None else self.along
        if self.kind != "data":
            along = frozenset()
        is_place, is_dense = self.kind == "place", self.kind == "dense"
        return Value(name, self.layout, along, place=is_place, dense=is_dense)

    def probed(self, layout: Layout) -> Layout:
        """As a rule took it, tokens that only repeat it as features."""
        along = self.along
        return layout if along is None else tuple(_without(label, along) for label in layout)


@dataclass(frozen=True, slots=True)
class Case:
    """A call of an operator. named: arguments by name. varying: of each output, which dimensions
    depend on sizes; moving: which numbers among the arguments do, at both sizes.
    """

    op: OpOverload
    args: Sequence[object]
    named: Mapping[str, object] = field(default_factory=dict)
    varying: Sequence[Sequence[bool]] = ()
    moving: Mapping[Path, Sequence[int | float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.op).split(".")[1]

    @property
    def operands(self) -> list[Operand]:
        found: list[Operand] = []
        self._each(found.append)
        return found

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        left = iter(tensors)
        args, named = self._each(lambda _: next(left))
        out = self.op(*args, **named)
        outputs = list(out) if isinstance(out, tuple | list) else [out]
        # What is in them is whatever was in memory.
        return [torch.zeros_like(one) for one in outputs] if "empty" in self.name else outputs

    @property
    def outputs(self) -> list[Tensor]:
        return self.run([one.tensor for one in self.operands])

    def beside(self, other: Case) -> Case:
        """With what differs from the same call at another size, as an export finds it out."""
        theirs = iter(other.operands)

        def seen(own: Operand) -> Operand:
            shape = next(theirs).tensor.shape
            if own.kind == "data":
                return own
            flags = (n != m for n, m in zip(own.tensor.shape, shape, strict=True))
            return replace(own, layout=tuple(map(unknown, own.tensor.shape, flags)))

        args, named = self._each(seen)
        shapes = [one.shape for one in other.outputs]
        # Of tokens taken one by one there are not as many; each is as long.
        shapes += shapes[-1:] * (len(self.outputs) - len(shapes))
        varying = [
            [n != m for n, m in zip(one.shape, shape, strict=True)]
            for one, shape in zip(self.outputs, shapes, strict=False)
        ]
        mine, others = dict(numbers(self._by_name())), dict(numbers(other._by_name()))
        moving = {path: [n, others[path]] for path, n in mine.items() if others[path] != n}
        return Case(self.op, args, named, varying, moving)

    def call(self, shapes: Sequence[tuple[int, ...]]) -> Call:
        """As dimension flow sees it; the operands are a0, a1, ..."""
        names = (f"a{i}" for i in range(100))
        args, named = self._each(lambda one: one.value(next(names)))
        defaults = {
            one.name: one.default_value if one.has_default_value() else None
            for one in self.op._schema.arguments
        }
        given = dict(zip(defaults, args, strict=False)) | named
        is_open = frozenset(f"a{i}" for i, one in enumerate(self.operands) if one.is_open)
        return Call(
            self.name,
            defaults | given,
            tuple(shapes),
            self.varying,
            self.moving,
            is_open,
            _company(self.operands),
        )

    def _each(self, change: Callable[[Operand], object]) -> tuple[list[object], dict[str, object]]:
        """The arguments with each operand changed, in order."""
        args = [_changed(one, change) for one in self.args]
        return args, {name: _changed(one, change) for name, one in self.named.items()}

    def _by_name(self) -> dict[str, object]:
        names = (one.name for one in self.op._schema.arguments)
        return dict(zip(names, self.args, strict=False)) | dict(self.named)


def violations(case: Case) -> list[str] | None:
    """What a rule says that experiments do not, in words; None where the rule refuses the case."""
    outputs = case.outputs
    call = case.call([tuple(one.shape) for one in outputs])
    try:
        outcome = RULES[case.name](call)
    except (Unlabelled, Refine):
        return None
    operands = case.operands
    taken = [call.settled.get((f"a{i}", 0), one.layout) for i, one in enumerate(operands)]
    for operand, layout in zip(operands, taken, strict=True):
        if operand.kind != "data" and any(map(is_unknown, layout)):
            return None  # as dimension flow refuses it
    found = [
        f"output {i} is {shape}, the rule says {extents(layout)}"
        for i, (shape, layout) in enumerate(zip(call.shapes, outcome.layouts, strict=True))
        if extents(layout) != shape
    ]
    if found:
        return found
    layouts = [one.probed(layout) for one, layout in zip(operands, taken, strict=True)]
    along = call.along if outcome.along is None else outcome.along
    findings = probe(case.run, [one.tensor for one in operands], layouts)
    for i, (layout, by_name) in enumerate(zip(outcome.layouts, findings, strict=True)):
        for name, finding in by_name.items():
            wrong = _contradiction(outcome, layout, along, name, finding)
            found += [f"output {i} {wrong}"] if wrong else []
    if all(one.kind == "data" for one in operands):
        found += _left_open(outcome, outputs)
    return found + _elements(outcome, taken)


def tokens_of(layout: Layout) -> frozenset[str]:
    return frozenset(name for label in layout for name in tokens(label))


def _company(operands: Sequence[Operand]) -> dict[str, frozenset[str]]:
    """By token axis, those of its stream: an image has rows and columns, and maybe frames."""
    every = frozenset().union(*(tokens_of(one.layout) for one in operands))
    image = frozenset({"rows", "columns"}) | (every & {"frames"})
    return {name: image if name in image else frozenset({name}) for name in every}


def _contradiction(
    outcome: Outcome, layout: Layout, along: frozenset[str], name: str, finding: Finding
) -> str | None:
    if not finding.depends:
        return None
    if finding.lies(layout, name):
        return None if name in along else f"differs along {name}, the rule says it does not"
    if finding.mixes and _may_mix(outcome, name):
        return None
    where = f"has {name} at {finding.places}" if finding.places else f"mixes {name}"
    return f"{where}, the rule says {tuple(map(tokens, layout))} and mixes {outcome.mixes}"


def _may_mix(outcome: Outcome, name: str) -> bool:
    """Attention mixes the tokens of its keys, a convolution those of its grid, and no others."""
    if outcome.mixes is None:
        return False
    if outcome.way == "attend":
        keys = outcome.over["keys"]
        assert isinstance(keys, tuple)
        return any(name in part for part in keys)
    return outcome.way != "conv" or name in tokens_of(outcome.layouts[0][2:])


def _elements(outcome: Outcome, layouts: Sequence[Layout]) -> list[str]:
    """What is a view on rows leaves each row as many elements as it had."""
    if outcome.way not in VIEWS:
        return []
    before, after = (math.prod(map(features, one)) for one in (layouts[0], outcome.layouts[0]))
    return [] if before == after else [f"a row of {before} elements is viewed as {after}"]


def _left_open(outcome: Outcome, outputs: Sequence[Tensor]) -> list[str]:
    """What may turn out to be tokens, where it meets some, has to repeat."""
    return [
        f"output {i} differs along dimension {dim}, the rule says it may repeat tokens"
        for i, (layout, output) in enumerate(zip(outcome.layouts, outputs, strict=True))
        for dim, label in enumerate(layout)
        if not isinstance(label, Joint) and len(label) == 1 and label[0].name == "?"
        if not torch.equal(output, output.narrow(dim, 0, 1).expand_as(output))
    ]


def _without(label: Label, along: frozenset[str]) -> Label:
    if isinstance(label, Joint):
        return Joint(tuple(_only(part, along) for part in label.parts))
    return _only(label, along)


def _only(part: Product, along: frozenset[str]) -> Product:
    return tuple(axis if axis.name in along else replace(axis, token=False) for axis in part)


def _changed(given: object, change: Callable[[Operand], object]) -> object:
    if isinstance(given, Operand):
        return change(given)
    return [_changed(one, change) for one in given] if isinstance(given, list) else given
