"""Rules of the compiler against experiments: each rule on random operands, whose tokens are changed
one by one (`musiva.compiler.probe`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._ops import OpOverload

from musiva.compiler.call import Call, Outcome, Value
from musiva.compiler.labels import Axis, Joint, Label, Layout, Refine, Unlabelled, extents, tokens
from musiva.compiler.probe import probe, random_like
from musiva.compiler.rules import RULES

__all__ = ["CASES", "Case", "Operand", "cases_of", "violations"]

aten = torch.ops.aten
# No extent is a product of others, so that an axis can lie at one place only.
ROWS, COLUMNS, WORDS = (Axis(n, e, True) for n, e in (("rows", 3), ("columns", 5), ("words", 7)))
FRAMES = Axis("frames", 11, True)


@dataclass(frozen=True, slots=True)
class Operand:
    """place: like a weight, the same for all samples."""

    tensor: Tensor
    layout: Layout
    place: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A call of an operator."""

    op: OpOverload
    args: Sequence[object]

    @property
    def name(self) -> str:
        return str(self.op).split(".")[1]

    @property
    def operands(self) -> list[Operand]:
        return [
            one
            for given in self.args
            for one in (given if isinstance(given, list) else [given])
            if isinstance(one, Operand)
        ]

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        left = list(tensors)

        def value(given: object) -> object:
            if isinstance(given, Operand):
                return left.pop(0)
            return [value(one) for one in given] if isinstance(given, list) else given

        out = self.op(*map(value, self.args))
        return list(out) if isinstance(out, tuple | list) else [out]

    def call(self) -> Call:
        """As dimension flow sees it."""
        count = iter(range(100))

        def seen(given: object) -> object:
            if isinstance(given, Operand):
                along = frozenset(name for label in given.layout for name in tokens(label))
                name = f"a{next(count)}"
                return Value(
                    name, given.layout, frozenset() if given.place else along, place=given.place
                )
            return [seen(one) for one in given] if isinstance(given, list) else given

        arguments = {}
        for i, parameter in enumerate(self.op._schema.arguments):
            if i < len(self.args):
                arguments[parameter.name] = seen(self.args[i])
            else:
                arguments[parameter.name] = (
                    parameter.default_value if parameter.has_default_value() else None
                )
        shapes = tuple(tuple(one.shape) for one in self.run([o.tensor for o in self.operands]))
        return Call(self.name, arguments, shapes, [[False] * len(shape) for shape in shapes])


def violations(case: Case) -> list[str] | None:
    """What a rule says that experiments do not, in words; None where the rule refuses the case."""
    try:
        outcome = RULES[case.name](case.call())
    except (Unlabelled, Refine):
        return None
    tensors = [one.tensor for one in case.operands]
    layouts = [one.layout for one in case.operands]
    outputs = case.run(tensors)
    found = []
    for i, (output, layout) in enumerate(zip(outputs, outcome.layouts, strict=True)):
        if extents(layout) != tuple(output.shape):
            found.append(f"output {i} is {tuple(output.shape)}, the rule says {extents(layout)}")
    if found:
        return found
    for i, findings in enumerate(probe(case.run, tensors, layouts)):
        for name, finding in findings.items():
            said = _place(outcome.layouts[i], name)
            if finding.mixes and outcome.mixes is None:
                found.append(f"output {i} mixes {name}, the rule says it does not")
            elif finding.place is not None and finding.place != said:
                found.append(f"output {i} has {name} at {finding.place}, the rule says {said}")
            elif finding.place is not None and not _is_along(outcome, case, name):
                found.append(f"output {i} differs along {name}, the rule says it does not")
    return found


def cases_of(name: str, seed: int) -> Iterator[Case]:
    """Some calls of an operator."""
    draw = random.Random(f"{name} {seed}")
    yield from CASES[name](Draw(draw))


class Draw:
    """Random operands."""

    def __init__(self, draw: random.Random) -> None:
        self.random = draw
        self.generator = torch.Generator().manual_seed(draw.randrange(1 << 30))

    def layout(self, *, last: int | None = None) -> Layout:
        """Of a sample: tokens of the image in some places, features in others."""
        labels: list[Label] = self.random.choice(
            [
                [(), (ROWS, COLUMNS), (Axis("d", 4),)],
                [(), (Axis("h", 2),), (ROWS, COLUMNS), (Axis("d", 4),)],
                [(ROWS,), (COLUMNS,), (Axis("d", 8),)],
                [(), (Axis("c", 4),), (ROWS, Axis("p", 2)), (COLUMNS, Axis("q", 2))],
                [(), (Axis("d", 4),)],
            ]
        )
        if last is not None:
            labels = [*labels[:-1], (Axis("d", last),)]
        return tuple(labels)

    def operand(
        self, layout: Layout, dtype: torch.dtype | None = None, *, place: bool = False
    ) -> Operand:
        dtype = dtype or self.random.choice([torch.float32, torch.float64])
        return Operand(random_like(extents(layout), dtype, self.generator), layout, place)

    def weight(self, *shape: int, dtype: torch.dtype = torch.float32) -> Operand:
        layout = tuple(() if n == 1 else (Axis("w", n),) for n in shape)
        return self.operand(layout, dtype, place=True)

    def features(self, layout: Layout) -> list[int]:
        """Dimensions without tokens."""
        return [i for i, label in enumerate(layout) if not tokens(label)]


def _place(layout: Layout, name: str) -> tuple[int, int] | None:
    for dim, label in enumerate(layout):
        inner = 1
        if isinstance(label, Joint):
            continue
        for axis in reversed(label):
            if axis.name == name:
                return dim, inner
            inner *= axis.extent
    return None


def _is_along(outcome: Outcome, case: Case, name: str) -> bool:
    return name in (case.call().along if outcome.along is None else outcome.along)


def _unary(
    op: OpOverload, *more: object, dtype: torch.dtype | None = None
) -> Callable[[Draw], Iterator[Case]]:
    def cases(draw: Draw) -> Iterator[Case]:
        for _ in range(3):
            yield Case(op, [draw.operand(draw.layout(), dtype), *more])

    return cases


def _binary(
    op: OpOverload, dtype: torch.dtype | None = torch.float32
) -> Callable[[Draw], Iterator[Case]]:
    """Alike, against a table, against a weight."""

    def cases(draw: Draw) -> Iterator[Case]:
        for _ in range(2):
            layout = draw.layout()
            table = tuple(label if not tokens(label) else () for label in layout)
            last = extents(layout)[-1:]
            yield Case(op, [draw.operand(layout, dtype), draw.operand(layout, dtype)])
            yield Case(op, [draw.operand(layout, dtype), draw.operand(table, dtype)])
            if not tokens(layout[-1]):
                yield Case(
                    op,
                    [draw.operand(layout, dtype), draw.weight(*last, dtype=dtype or torch.float32)],
                )

    return cases


def _linear(draw: Draw) -> Iterator[Case]:
    layout = draw.layout(last=4)
    yield Case(
        aten.linear.default,
        [draw.operand(layout, torch.float32), draw.weight(6, 4), draw.weight(6)],
    )


def _attention(draw: Draw) -> Iterator[Case]:
    heads, width = (Axis("h", 2),), (Axis("d", 4),)
    image: Layout = ((), heads, (ROWS, COLUMNS), width)
    text: Layout = ((), heads, (WORDS,), width)
    frames: Layout = ((FRAMES,), heads, (ROWS, COLUMNS), width)
    columns: Layout = ((ROWS, COLUMNS), heads, (FRAMES,), width)
    for q, k in ((image, image), (image, text), (frames, frames), (columns, columns)):
        operands = [draw.operand(one, torch.float64) for one in (q, k, k)]
        yield Case(aten.scaled_dot_product_attention.default, operands)


CASES: Mapping[str, Callable[[Draw], Iterator[Case]]] = {
    **{
        name: _unary(getattr(aten, name).default)
        for name in (
            "silu",
            "gelu",
            "sigmoid",
            "tanh",
            "exp",
            "cos",
            "sin",
            "relu",
            "neg",
            "abs",
            "rsqrt",
        )
    },
    **{name: _binary(getattr(aten, name).Tensor) for name in ("add", "sub", "mul", "div")},
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
}
