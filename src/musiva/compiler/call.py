"""What dimension flow knows of a value and of an operation, and what a rule says of one.

The ways in which an operation can run on rows (an operand [a, b, c] lies there as [R, a', b', c']:
R rows, and of each dimension what is not tokens):

same: the same operator; dimensions in `over["dims"]` count from the row axis. Operands of other
ranks meet at their last dimensions, unless `over["align"]` is False.
keep: nothing, the operand as it is. cast, copy: another type; another tensor in the place of one.
shape, order, spread: a view, a permutation (`over["order"]`), dimensions repeated to a shape.
repeat, interleave: features repeated, `over["times"]`. scatter: some of them replaced.
shuffle, unshuffle: channels to places within a token, and back.
fill: a constant. outer, einsum: products. cat: features behind one another. alone: one of a list
of one.
linear, patch: a linear layer; a convolution that is one on each token.
attend, conv: `run.attend` (`over`: grouping, streams), `run.conv`.
reduce, pool: `run.reduce`, sums over all tokens of a sample, of products or of one operand alone.
apply: a product with a matrix of the sample, sample by sample (`over["left"]`: it is the left one).
join, take, replace: rows of several streams behind one another; those of the parts
`over["parts"]`; others in their place.
item: one of several outputs.
dense: the operator, sample by sample, in the layout of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from musiva.compiler.export import Path
from musiva.compiler.labels import (
    Joint,
    Label,
    Layout,
    Unlabelled,
    extents,
    features,
    tokens,
    unify,
    unknown,
)

__all__ = ["Call", "Outcome", "Value"]


@dataclass(frozen=True, slots=True)
class Value:
    """Of a tensor. name: of its node, index: which of what that returns. along: the token axes
    along which it differs; others of its layout only repeat it. place: it depends on sizes and
    weights alone. dense: it lies sample by sample, in the layout of the graph.
    """

    name: str
    layout: Layout
    along: frozenset[str] = frozenset()
    index: int = 0
    place: bool = False
    dense: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return extents(self.layout)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule says. layouts: of each tensor that the operation returns. along: None for the
    union over its operands. mixes: what it does across tokens, in words; None for nothing.
    """

    layouts: tuple[Layout, ...]
    way: str = "same"
    over: Mapping[str, object] = field(default_factory=dict)
    along: frozenset[str] | None = None
    mixes: str | None = None


@dataclass(slots=True)
class Call:
    """One operation: its arguments by the names of the operator's schema, tensors as `Value`; the
    shapes that it returns, with whether each dimension depends on sizes; which numbers among the
    arguments do. settled: layouts of operands with unknown dimensions, as they turn out to be, by
    name and index. company: by token axis, all axes that tokens of its stream have.
    """

    op: str
    arguments: Mapping[str, object]
    shapes: tuple[tuple[int, ...], ...]
    varying: Sequence[Sequence[bool]]
    moving: Mapping[Path, Sequence[int | float]] = field(default_factory=dict)
    open_masks: frozenset[str] = frozenset()
    company: Mapping[str, frozenset[str]] = field(default_factory=dict)
    settled: dict[tuple[str, int], Layout] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether that argument is there and is a tensor."""
        return isinstance(self.arguments.get(name), Value)

    def value(self, name: str) -> Value:
        found = self.arguments.get(name)
        if not isinstance(found, Value):
            raise Unlabelled(f"{self.op}: {name} is {found!r}")
        return found

    def layout(self, name: str) -> Layout:
        return self.layout_of(self.value(name))

    def layout_of(self, value: Value) -> Layout:
        """As far as it is known by now."""
        return self.settled.get((value.name, value.index), value.layout)

    def number(self, name: str) -> int:
        found = self.arguments.get(name)
        if isinstance(found, bool) or not isinstance(found, int):
            raise Unlabelled(f"{self.op}: {name} is {found!r}")
        return found

    def dim(self, name: str, rank: int) -> int:
        """A dimension, counted from the front."""
        return self.number(name) % max(rank, 1)

    def dims(self, name: str, rank: int) -> tuple[int, ...]:
        """Dimensions counted from the front; all of them where none are named."""
        found = self.arguments.get(name)
        if found is None or found == []:
            return tuple(range(rank))
        listed = found if isinstance(found, Sequence) else [found]
        return tuple(sorted(int(dim) % max(rank, 1) for dim in listed))  # type: ignore[call-overload]

    @property
    def operands(self) -> list[Value]:
        """All tensors among the arguments, in order."""
        return list(_values(self.arguments.values()))

    @property
    def along(self) -> frozenset[str]:
        """The token axes along which any operand differs."""
        found = frozenset().union(*(value.along for value in self.operands))
        for value in self.operands:
            if value.place or value.dense:
                found |= {name for label in self.layout_of(value) for name in tokens(label)}
        return found

    def is_whole(self, label: Label) -> bool:
        """Whether a dimension has all tokens of one stream, and nothing else."""
        names = tokens(label)
        whole = self.company.get(names[0]) if names else None
        return not isinstance(label, Joint) and features(label) == 1 and whole == frozenset(names)

    def settle(self, value: Value, layout: Layout) -> None:
        """What the dimensions of an operand turn out to be; `layout` is aligned with its last ones.
        Raises Unlabelled where it turned out to be something else in the same call.
        """
        last = layout[len(layout) - len(value.layout) :]
        known = tuple(
            own if n == 1 else unify(own, other)
            for own, other, n in zip(value.layout, last, value.shape, strict=True)
        )
        if known == value.layout:
            return
        if extents(known) != value.shape:
            raise Unlabelled(f"{self.op}: {value.name} does not fit its layout")
        key = value.name, value.index
        if self.settled.setdefault(key, known) != known:
            raise Unlabelled(f"{self.op}: {value.name} is two things at once")

    def ignore(self, value: Value) -> None:
        """What it is does not matter."""
        plain = tuple(unknown(size, varies=False) for size in value.shape)
        self.settled[value.name, value.index] = plain


def _values(given: Iterable[object]) -> Iterator[Value]:
    for one in given:
        if isinstance(one, Value):
            yield one
        elif isinstance(one, list | tuple):
            yield from _values(one)
