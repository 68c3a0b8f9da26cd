"""Random operands, the same at two sizes: decisions are drawn alike, extents of tokens are not."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor

from musiva.compiler.labels import (
    Axis,
    Joint,
    Label,
    Layout,
    Product,
    extents,
    feature,
    tokens,
)
from musiva.compiler.probe import occurrences
from musiva.perf.rule_cases.base import Kind, Operand, tokens_of

__all__ = ["Domain", "Draw"]

T = TypeVar("T")
# Of one token axis, at both sizes: no axis, and no product of some, is as long at both.
SIZES = ((2, 4), (3, 9), (4, 8), (5, 10), (6, 12), (7, 14))
FLOATS = (torch.float64, torch.float64, torch.float64, torch.float32, torch.bfloat16)


class Domain(Enum):
    """What an operator takes. BROKEN: among others, what is not finite. WHOLE: small numbers from 1
    on. BITS: whole numbers or truth values. INDEX: what is below another number, if one is added.
    """

    ANY = 1
    POSITIVE = 2
    UNIT = 3
    BROKEN = 4
    WHOLE = 5
    BITS = 6
    MASK = 7
    COMPLEX = 8
    INDEX = 9


class Draw:
    """size: which of the two."""

    def __init__(self, seed: str, size: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(self.random.randrange(1 << 30))
        lengths = [pair[size] for pair in self.random.sample(SIZES, 4)]
        self.rows, self.columns, self.frames, self.words = (
            Axis(name, length, True)
            for name, length in zip(("rows", "columns", "frames", "words"), lengths, strict=True)
        )
        self.marks = Axis("marks", 2, True, fixed=True)

    # Decisions. None may depend on a size.

    def pick(self, several: Sequence[T]) -> T:
        return self.random.choice(several)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def below(self, number: int) -> int:
        """Draws as much for any number."""
        return int(self.random.random() * number)

    def dim(self, rank: int) -> int:
        """Counted from the front or from the back."""
        found = self.below(rank)
        return found - rank if self.chance(0.4) else found

    def shuffled(self, several: Sequence[T]) -> list[T]:
        return self.random.sample(several, len(several))

    def types(self, *, exact: bool = False) -> Mapping[Domain, torch.dtype]:
        """Of one call. exact: no type of 16 bits."""
        real = self.pick(FLOATS[:-1] if exact else FLOATS)
        other = {
            Domain.WHOLE: torch.int64,
            Domain.INDEX: torch.int64,
            Domain.BITS: self.pick((torch.int64, torch.bool)),
            Domain.MASK: torch.bool,
            Domain.COMPLEX: self.pick((torch.complex64, torch.complex128)),
        }
        return {domain: other.get(domain, real) for domain in Domain}

    # Labels.

    def label(self) -> Product:
        """Of tokens, with places or without."""
        r, c, p = self.rows, self.columns, Axis("place", 2)
        f, w = self.frames, self.words
        return self.pick([(r, c), (r,), (c,), (r, p), (p, r), (f,), (w,), (f, r, c), (self.marks,)])

    def joint(self) -> Joint:
        image, words = (self.rows, self.columns), (self.words,)
        marks, frames = (self.marks,), (self.frames, self.rows, self.columns)
        several = [(words, image), (image, words), (words, frames), (image, marks, words)]
        return Joint(self.pick([*several, (image, image)]))

    def distinct(self) -> list[Label]:
        """Four or five of different tokens, in any order."""
        r, c, p = self.rows, self.columns, Axis("place", 2)
        image: list[Label] = self.pick([[(r, c)], [(r,), (c,)], [(r, p), (c, p)]])
        return self.shuffled([*image, (self.frames,), (self.words,), (self.marks,)])

    def layout(self, *ends: Label, joint: bool = True) -> Layout:
        """Of tokens in some dimensions, of features in others, in any order; then these. joint:
        whether streams may be behind one another.
        """
        r, c, f, w = ((axis,) for axis in (self.rows, self.columns, self.frames, self.words))
        p = (Axis("place", 2),)
        several: list[list[Label]] = [
            [r + c],
            [r, c],
            [r + p, c + p],
            [p + r, c],
            [f, r + c],
            [f, r, c],
            [f + r + c],
            [f + r, c + p],
            [w],
            [w, (self.marks,)],
            [w, r + c],
            [],
        ]
        both = self.joint()
        # Frames lie in it where they are not a dimension of their own.
        own = [] if "frames" in tokens(both) else [f]
        several += [[both], [*own, both]] if joint else []
        labels = list(self.pick(several))
        labels += [feature(self.pick((2, 3, 4))) for _ in range(self.pick((1, 1, 2)))]
        labels += [()] * self.pick((0, 0, 1))
        return (*self.shuffled(labels), *ends)

    def near(self, layout: Layout) -> Layout:
        """One that meets it: some dimensions are 1, or missing in front."""
        out = tuple(() if self.chance(0.3) else label for label in layout)
        return out[self.pick((0, 0, 0, 1, 2)) :]

    def twisted(self, layout: Layout) -> Layout:
        """The same extents, but one dimension with tokens is something else."""
        dims = [i for i, label in enumerate(layout) if tokens(label)]
        if not dims:
            return layout
        dim = self.pick(dims)
        (size,) = extents((layout[dim],))
        label = layout[dim]
        turned = Joint(label.parts[::-1]) if isinstance(label, Joint) else label[::-1]
        new = self.pick([feature(size), turned, turned])
        return (*layout[:dim], new, *layout[dim + 1 :])

    # Operands.

    def operand(
        self,
        layout: Layout,
        dtype: torch.dtype = torch.float64,
        domain: Domain = Domain.ANY,
        *,
        kind: Kind = "data",
        high: int = 2,
    ) -> Operand:
        """high: which number an index is below."""
        shape = extents(layout)
        return Operand(_filled(shape, dtype, domain, high, self.generator), layout, kind)

    def weight(self, *shape: int, dtype: torch.dtype = torch.float64) -> Operand:
        return self.operand(tuple(map(feature, shape)), dtype, kind="place")

    def repeated(self, operand: Operand) -> Operand:
        """Along some of its token axes it is the same."""
        names = sorted(tokens_of(operand.layout))
        along = frozenset(name for name in names if self.chance(0.4))
        for name in names:
            for view, dim in occurrences(operand.tensor, operand.layout, name):
                if name not in along:
                    view.copy_(view.select(dim, 0).unsqueeze(dim).clone())
        return replace(operand, along=along)

    def some(
        self,
        layout: Layout,
        dtype: torch.dtype = torch.float64,
        domain: Domain = Domain.ANY,
        *,
        high: int = 2,
    ) -> Operand:
        """What differs from token to token, or repeats; or of which extents are known only."""
        kind: Kind = self.pick(("data", "data", "data", "data", "data", "dense"))
        found = self.operand(layout, dtype, domain, kind=kind, high=high)
        # Streams behind one another are never the same.
        repeats = self.chance(0.2) and not any(isinstance(label, Joint) for label in layout)
        return self.repeated(found) if repeats and kind == "data" else found

    def other(
        self,
        layout: Layout,
        dtype: torch.dtype = torch.float64,
        domain: Domain = Domain.ANY,
        *,
        high: int = 2,
    ) -> Operand:
        """Beside what a sample brings: the same, or a place."""
        found = self.some(layout, dtype, domain, high=high)
        return replace(found, kind="place", along=None) if self.chance(0.3) else found

    def partner(self, layout: Layout, dtype: torch.dtype, domain: Domain) -> Operand:
        """What may meet an operand of that layout."""
        which = self.pick(("same", "same", "near", "near", "place", "dense", "weight", "twisted"))
        near, twisted = self.near(layout), self.twisted(layout)
        if which == "same":
            return self.operand(layout, dtype, domain)
        if which == "near":
            return self.operand(near, dtype, domain)
        if which == "place":
            return self.operand(near, dtype, domain, kind="place")
        if which == "dense":
            return self.operand(near, dtype, domain, kind="dense")
        if which == "weight":
            own = () if tokens(layout[-1]) else layout[-1:]
            return self.operand(own, dtype, domain, kind="place")
        return self.operand(twisted, dtype, domain)


def _filled(
    shape: Sequence[int],
    dtype: torch.dtype,
    domain: Domain,
    high: int,
    generator: torch.Generator,
) -> Tensor:
    size = tuple(shape)
    if dtype == torch.bool:
        return torch.rand(size, generator=generator) < 0.5
    if dtype.is_complex:
        return torch.randn(size, dtype=dtype, generator=generator)
    if domain == Domain.INDEX:
        return torch.randint(0, max(high - 1, 1), size, generator=generator)
    if not dtype.is_floating_point:
        return torch.randint(1, 7, size, generator=generator)
    found = torch.randn(size, dtype=torch.float64, generator=generator)
    if domain == Domain.POSITIVE:
        found = found.abs() + 0.5
    elif domain == Domain.UNIT:
        found = found.tanh() * 0.9
    elif domain == Domain.BROKEN:
        found[found > 1.0] = torch.inf
        found[found < -1.0] = torch.nan
    return found.to(dtype)
