"""Labels: what each dimension of a tensor stands for.

A label is an ordered product of axes, outermost first. A *token* axis is one along which tokens
lie (frames, rows, columns, words); every other axis is a *feature* axis (heads, channels, places
within a patch). A latent [C, 2 * rows, 2 * columns] has the labels (C), (rows, 2), (columns, 2);
the tokens that a patch embedding makes of it [1, rows * columns, D] have (), (rows, columns), (D).
A dimension of extent 1 has the empty label. Tokens of two streams behind one another, as joint
attention wants them, are a *joint* label, which a later split undoes.

Everything is said of one sample: what a graph does with a leading axis of several samples, it does
with each, and a pack has its own way to hold many (`musiva.core.pack`).

View algebra after the index ids of AutoChunk's dimension tracing (Zhao et al., ICLR 2024), which
gave up where dimensions are merged and split; here a merged dimension keeps its factors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "Axis",
    "Joint",
    "Label",
    "Layout",
    "Product",
    "Refine",
    "Unlabelled",
    "axes_of",
    "broadcast",
    "extent",
    "extents",
    "feature",
    "features",
    "is_unknown",
    "regroup",
    "tokens",
    "unify",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class Axis:
    """token: None where it is not known yet: the extent depends on sizes, and what it stands for
    shows when it meets a dimension that is known. fixed: tokens of which the model takes one
    number only, so that no extent shows that it depends on it.
    """

    name: str
    extent: int
    token: bool | None = False
    fixed: bool = False

    def split(self, outer: int) -> tuple[Axis, Axis]:
        """A feature axis as two."""
        inner = self.extent // outer
        return Axis(f"{self.name}.0", outer), Axis(f"{self.name}.1", inner)


Product = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Joint:
    """Parts behind one another, each of one stream."""

    parts: tuple[Product, ...]


Label = Product | Joint
Layout = tuple[Label, ...]


class Unlabelled(Exception):
    """The labels of a value cannot be told; the message says why."""


class Refine(Exception):
    """A token axis turns out to be made of tokens and, within each, `inner` places: a patch."""

    def __init__(self, axis: str, inner: int) -> None:
        super().__init__(f"{axis}: {inner} places a token")
        self.axis, self.inner = axis, inner


def extent(label: Label) -> int:
    if isinstance(label, Joint):
        return sum(map(extent, label.parts))
    return math.prod(axis.extent for axis in label)


def extents(layout: Layout) -> tuple[int, ...]:
    """The shape."""
    return tuple(map(extent, layout))


def axes_of(label: Label) -> Iterator[Axis]:
    for part in label.parts if isinstance(label, Joint) else (label,):
        yield from part


def tokens(label: Label) -> tuple[str, ...]:
    """Names of its token axes, in their order."""
    return tuple(axis.name for axis in axes_of(label) if axis.token)


def features(label: Label) -> int:
    """The extent of what is not tokens; that of what is unknown counts as tokens."""
    if isinstance(label, Joint):
        return 1
    return math.prod(axis.extent for axis in label if axis.token is False)


def is_unknown(label: Label) -> bool:
    return any(axis.token is None for axis in axes_of(label))


def feature(size: int) -> Label:
    """Of a dimension that is no tokens, also where it is as long as some of which there are always
    as many.
    """
    return () if size == 1 else (Axis("feature", size),)


def unknown(size: int, varies: bool) -> Label:
    """Of a dimension of which only the extent is known, and whether that depends on sizes."""
    return () if size == 1 else (Axis("?", size, None if varies else False),)


def regroup(layout: Layout, shape: Sequence[int]) -> Layout:
    """The layout of a view of that shape: the same axes in the same order, cut elsewhere.

    Raises Refine where a token axis would be cut into tokens and places within them, Unlabelled
    where a cut goes through a joint dimension, or through nothing that it could be.
    """
    queue: list[Axis | Joint] = []
    for label in layout:
        if isinstance(label, Joint):
            queue.append(label)
        else:
            queue += [axis for axis in label if axis.extent > 1]
    queue.reverse()
    out: list[Label] = []
    for n in shape:
        taken: list[Axis | Joint] = []
        have = 1
        while have < n and queue:
            part = queue.pop()
            size = _size(part)
            if n % (have * size) == 0:
                taken.append(part)
                have *= size
                continue
            outer = n // have
            if n % have or isinstance(part, Joint) or part.extent % outer:
                raise Unlabelled(f"{_show(layout)} cannot be viewed as {list(shape)}")
            if part.token:
                raise Refine(part.name, part.extent // outer)
            if part.token is None:
                first, second = _halves(part, outer)
            else:
                first, second = part.split(outer)
            taken.append(first)
            queue.append(second)
            have = n
        if have != n:
            raise Unlabelled(f"{_show(layout)} cannot be viewed as {list(shape)}")
        out.append(_label(taken, layout, shape))
    if queue:
        raise Unlabelled(f"{_show(layout)} cannot be viewed as {list(shape)}")
    return tuple(out)


def unify(a: Label, b: Label) -> Label:
    """Of two dimensions that meet element by element. Raises Unlabelled where they are not of the
    same tokens.
    """
    if extent(a) == 1 or _may_be(a, b):
        return b
    if extent(b) == 1 or _may_be(b, a):
        return a
    if (
        extent(a) != extent(b)
        or _places(a) != _places(b)
        or isinstance(a, Joint) != isinstance(b, Joint)
    ):
        raise Unlabelled(f"{_show((a,))} meets {_show((b,))}")
    return a


def _places(label: Label) -> list[tuple[str, int]]:
    """Of each token axis, how many elements lie within an index of it."""
    parts = label.parts if isinstance(label, Joint) else (label,)
    return [
        (axis.name, math.prod(inner.extent for inner in part[i + 1 :]))
        for part in parts
        for i, axis in enumerate(part)
        if axis.token
    ]


def _may_be(a: Label, b: Label) -> bool:
    """Whether nothing is known of one dimension that says that it is not the other."""
    if extent(a) != extent(b):
        return False
    nameless = not isinstance(a, Joint) and len(a) == 1 and a[0].name == "?"
    return is_unknown(a) or (nameless and all(axis.fixed for axis in axes_of(b)))


def broadcast(layouts: Sequence[Layout]) -> Layout:
    """Of tensors that meet element by element, aligned at their last dimensions."""
    rank = max(map(len, layouts), default=0)
    found: list[Label] = [()] * rank
    for layout in layouts:
        for i, label in enumerate(layout, rank - len(layout)):
            found[i] = unify(found[i], label)
    return tuple(found)


def _size(part: Axis | Joint) -> int:
    return part.extent if isinstance(part, Axis) else extent(part)


def _halves(axis: Axis, outer: int) -> tuple[Axis, Axis]:
    return Axis(axis.name, outer, None), Axis(axis.name, axis.extent // outer, None)


def _label(taken: Sequence[Axis | Joint], layout: Layout, shape: Sequence[int]) -> Label:
    joints = [part for part in taken if isinstance(part, Joint)]
    if not joints:
        return tuple(part for part in taken if isinstance(part, Axis))
    if len(taken) > 1:
        raise Unlabelled(f"{_show(layout)} cannot be viewed as {list(shape)}: it merges streams")
    return joints[0]


def _show(layout: Layout) -> str:
    def product(label: Product) -> str:
        return "*".join(axis.name if axis.token else str(axis.extent) for axis in label) or "1"

    return "[{}]".format(
        ", ".join(
            " + ".join(map(product, label.parts)) if isinstance(label, Joint) else product(label)
            for label in layout
        )
    )
