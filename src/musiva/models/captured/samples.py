"""What a caller gives for one sample, in the layout of the class: its sizes, and its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from musiva.compiler.arguments import Argument, Extent, Sizes, factors, size_of
from musiva.core.errors import InvalidInput
from musiva.models.captured.known.base import Signature

__all__ = ["Sample", "read"]


@dataclass(frozen=True, slots=True)
class Sample:
    """values: tensors of what a sample brings, by argument."""

    sizes: Mapping[str, int]
    values: Mapping[str, Tensor]


def read(signature: Signature, given: Mapping[str, object], field: str) -> Sample:
    """given: by argument, for one sample without an axis of a batch; what follows from sizes may be
    left out. field: what errors call them. Raises InvalidInput for what is missing, unknown, of
    another shape than the class takes, or not what follows from its sizes.
    """
    arguments = signature.arguments
    unknown = sorted(set(given) - set(arguments))
    if unknown:
        raise InvalidInput(field, unknown, ", ".join(arguments))
    values: dict[str, Tensor] = {}
    for name, argument in arguments.items():
        if argument.is_data:
            values[name] = _value(name, argument, given, field)
    sizes = _sizes(signature, values, given, field)
    for name, argument in arguments.items():
        if argument.is_data and values[name].shape != argument.shape(sizes):
            dims = ", ".join(map(str, argument.dims))
            raise InvalidInput(f"{field}[{name!r}]", tuple(values[name].shape), f"[{dims}]")
    return Sample(sizes, values)


def _value(name: str, argument: Argument, given: Mapping[str, object], field: str) -> Tensor:
    value = given.get(name)
    if argument.kind == "time" and isinstance(value, int | float):
        value = torch.tensor(float(value))
    if argument.kind == "classes" and isinstance(value, int):
        value = torch.tensor(value)
    dims = ", ".join(map(str, argument.dims))
    if not isinstance(value, Tensor):
        shown = "left out" if value is None else type(value).__name__
        raise InvalidInput(f"{field}[{name!r}]", shown, f"a tensor [{dims}]")
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise InvalidInput(f"{field}[{name!r}]", "not finite", f"a tensor [{dims}] of numbers")
    if argument.kind == "classes" and not bool(((value >= 0) & (value < argument.high)).all()):
        raise InvalidInput(f"{field}[{name!r}]", value.tolist(), f"0 to {int(argument.high) - 1}")
    if argument.kind == "time" and value.ndim < len(argument.dims):
        return value  # one for all tokens; it is spread when sizes are known
    if value.ndim != len(argument.dims):
        raise InvalidInput(f"{field}[{name!r}]", tuple(value.shape), f"a tensor [{dims}]")
    return value


def _sizes(
    signature: Signature, values: dict[str, Tensor], given: Mapping[str, object], field: str
) -> Mapping[str, int]:
    """Those that shapes leave open are what makes positions as they were given."""
    arguments = signature.arguments
    known: list[tuple[Extent, int]] = [
        (dim, extent)
        for name, value in values.items()
        if value.ndim == len(arguments[name].dims)
        for dim, extent in zip(arguments[name].dims, value.shape, strict=True)
    ]
    found = [sizes for sizes in _solutions(known, dict(signature.fixed)) if signature.allows(sizes)]
    asked = [name for name in given if arguments[name].make is not None]
    matching = [one for one in found if all(_agrees(arguments[n], one, given[n]) for n in asked)]
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    if not matching:
        raise InvalidInput(field, {**shapes, **dict.fromkeys(asked, "given")}, signature.shown())
    if len(matching) > 1:
        makers = [name for name, one in arguments.items() if one.make is not None]
        raise InvalidInput(
            field, shapes, f"one of {', '.join(makers)} too: {len(matching)} sizes have such shapes"
        )
    (sizes,) = matching
    for name, value in values.items():
        argument = arguments[name]
        if argument.kind == "time" and value.ndim < len(argument.dims):
            values[name] = value.expand(argument.shape(sizes))
    return sizes


def _solutions(known: Sequence[tuple[Extent, int]], sizes: Sizes) -> Iterator[dict[str, int]]:
    """All sizes with these extents."""
    left: list[tuple[int, tuple[str, ...], Extent, int]] = []
    for extent, value in known:
        times, names = factors(extent)
        if names and not set("+-") & set(str(extent)):
            open_names = tuple(name for name in names if name not in sizes)
            if open_names:
                left.append((times, open_names, extent, value))
                continue
        if set(_names(extent)) <= set(sizes) and size_of(extent, sizes) != value:
            return
    if not left:
        yield dict(sizes)
        return
    times, names, extent, value = min(left, key=lambda one: len(one[1]))
    done = [name for name in factors(extent)[1] if name in sizes]
    for name in done:
        times *= sizes[name]
    if value % times:
        return
    whole = value // times
    first = names[0]
    options = [whole] if len(names) == 1 else [n for n in range(1, whole + 1) if whole % n == 0]
    for option in options:
        yield from _solutions(known, {**sizes, first: option})


def _names(extent: Extent) -> set[str]:
    if isinstance(extent, int):
        return set()
    words = "".join(c if c.isalnum() or c == "_" else " " for c in extent).split()
    return {word for word in words if not word.isdecimal()}


def _agrees(argument: Argument, sizes: Sizes, given: object) -> bool:
    """Whether what was given is what follows from sizes."""
    assert argument.make is not None
    try:
        made = argument.make(sizes)
    except (ValueError, IndexError, KeyError, RuntimeError):
        return False
    mine, theirs = pytree.tree_leaves(made), pytree.tree_leaves(given)
    return len(mine) == len(theirs) and all(map(_same, mine, theirs))


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        b = b.to(a.device)
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-5)
    return a == b
