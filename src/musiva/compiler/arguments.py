"""What a model is called with: every argument of one sample, in terms of named sizes.

Sizes are `rows` and `columns` of tokens (or of latent positions, where nothing says how many make a
token), `frames`, `words` of the text, and whatever else a class has. An extent is a number or an
expression of them: "2*rows", "frames*rows*columns", "frames-1".
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Argument",
    "Batch",
    "Extent",
    "Sizes",
    "call_arguments",
    "classes",
    "entry_of",
    "factors",
    "given",
    "mask",
    "places",
    "put_entry",
    "size_of",
    "time",
    "values",
]

Extent = int | str
Sizes = Mapping[str, int]
# How one sample becomes the argument of a call: a leading axis, a list of one, or as it is.
Batch = Literal["axis", "list", "none"]
Kind = Literal["values", "time", "mask", "classes", "places", "given"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """kind: `values` are floats, `time` a number up to `high`, `mask` ones, `classes` a whole
    number below `high`; `places` and `given` are functions of the sizes alone, tensors or plain
    Python values. dims: of one sample.
    """

    kind: Kind
    dims: tuple[Extent, ...] = ()
    batch: Batch = "axis"
    high: float = 0.0
    make: Callable[[Sizes], object] | None = None

    @property
    def is_data(self) -> bool:
        """Whether it is a sample's own, and not a function of sizes."""
        return self.kind in ("values", "time", "classes")

    def factors(self, dim: Extent) -> tuple[int, tuple[str, ...]]:
        """A dimension as positions within a token, as far as that can be, and names of tokens: only
        on a grid of rows and columns are several positions a token.
        """
        times, names = factors(dim)
        on_grid = any(name in ("rows", "columns") for one in self.dims for name in factors(one)[1])
        return (times, names) if on_grid or times == 1 or not names else (1, (str(dim),))

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        return tuple(size_of(dim, sizes) for dim in self.dims)

    def example(self, sizes: Sizes, generator: torch.Generator) -> object:
        """One of one sample, without the axis of a batch."""
        if self.make is not None:
            return self.make(sizes)
        shape = self.shape(sizes)
        if self.kind == "values":
            return torch.randn(shape, generator=generator)
        if self.kind == "time":
            return torch.full(shape, float(torch.rand((), generator=generator)) * self.high)
        if self.kind == "mask":
            return torch.ones(shape, dtype=torch.bool)
        return torch.randint(int(self.high), shape, generator=generator)

    def batched(self, value: object) -> object:
        """As the argument of a call for one sample."""
        if self.batch == "axis" and isinstance(value, Tensor):
            return value[None]
        return [value] if self.batch == "list" else value


def values(*dims: Extent, batch: Batch = "axis") -> Argument:
    """Floats: latents, text, whatever comes from outside and is different for each sample."""
    return Argument(kind="values", dims=dims, batch=batch)


def time(*dims: Extent, high: float = 1000.0) -> Argument:
    """A timestep, or several of the same value; or guidance, or another number as an input."""
    return Argument(kind="time", dims=dims, high=high)


def mask(*dims: Extent, batch: Batch = "axis") -> Argument:
    """Which words are there: all."""
    return Argument(kind="mask", dims=dims, batch=batch)


def classes(count: int) -> Argument:
    """A class label."""
    return Argument(kind="classes", high=count)


def places(make: Callable[[Sizes], Tensor], *, batch: Batch = "none") -> Argument:
    """A tensor of positions, as the pipeline makes it of sizes alone (of one sample)."""
    return Argument(kind="places", batch=batch, make=make)


def given(make: Callable[[Sizes], object]) -> Argument:
    """A plain Python value made of sizes, as it is passed for one sample (batch 1): shapes, flags,
    numbers.
    """
    return Argument(kind="given", batch="none", make=make)


def call_arguments(
    arguments: Mapping[str, Argument],
    sizes: Sizes,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> dict[str, object]:
    """Keyword arguments of a call of the class for one sample of these sizes. A dot in a name says
    that it is an entry of a mapping. dtype: of latents and texts.
    """
    found: dict[str, object] = {}
    for name, argument in arguments.items():
        example = argument.example(sizes, generator)
        if argument.kind == "values" and isinstance(example, Tensor):
            example = example.to(dtype)
        put_entry(found, name, argument.batched(example))
    return found


def entry_of(called: Mapping[str, object], name: str) -> object:
    """An argument of a call; with a dot, an entry of a mapping."""
    outer, _, inner = name.partition(".")
    value = called[outer]
    if not inner:
        return value
    assert isinstance(value, Mapping)
    return value[inner]


def put_entry(called: dict[str, object], name: str, value: object) -> None:
    """What `entry_of` reads."""
    outer, _, inner = name.partition(".")
    if not inner:
        called[outer] = value
        return
    entries = called.setdefault(outer, {})
    assert isinstance(entries, dict)
    entries[inner] = value


def size_of(extent: Extent, sizes: Sizes) -> int:
    """In positions."""
    return extent if isinstance(extent, int) else _value(ast.parse(extent, mode="eval").body, sizes)


def factors(extent: Extent) -> tuple[int, tuple[str, ...]]:
    """A product as its number and its names. What is no product, "frames - 1", is a name of its
    own.
    """
    if isinstance(extent, int):
        return extent, ()
    if set(extent) & set("+-"):
        return 1, (extent,)
    parts = [part.strip() for part in extent.split("*")]
    times = math.prod(int(part) for part in parts if part.isdecimal())
    return times, tuple(part for part in parts if not part.isdecimal())


def _value(node: ast.expr, sizes: Sizes) -> int:
    match node:
        case ast.Constant(int(value)):
            return value
        case ast.Name(name):
            return sizes[name]
        case ast.BinOp(left, ast.Mult(), right):
            return _value(left, sizes) * _value(right, sizes)
        case ast.BinOp(left, ast.Add(), right):
            return _value(left, sizes) + _value(right, sizes)
        case ast.BinOp(left, ast.Sub(), right):
            return _value(left, sizes) - _value(right, sizes)
    raise ValueError(f"{ast.unparse(node)} is no sum of products of sizes and numbers")
