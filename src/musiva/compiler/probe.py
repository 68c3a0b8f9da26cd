"""Where tokens go, by experiment: change what one of them brings, and see which results change.

Every rule is held against it. A place of a token axis in a dimension is told by extents alone: if
the n indices along the axis are changed one by one and what changes is each time every `inner`-th
run of a dimension, the axis lies there with `inner` elements to an index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from musiva.compiler.labels import Joint, Label, Layout, Product, axes_of, extent

__all__ = ["Finding", "occurrences", "probe"]

Outputs = Sequence[Tensor]
Function = Callable[[Sequence[Tensor]], Outputs]


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one token axis and one output. touched: of each dimension, which of its positions change
    with which index of the axis [indices, positions].
    """

    depends: bool
    touched: tuple[Tensor, ...]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Where the axis can lie: dimensions, and how many elements lie within an index of it
        there. None where the output mixes the axis, does not depend on it, or has it in one of
        several parts.
        """
        if not self.depends:
            return []
        return [
            (dim, inner)
            for dim, hit in enumerate(self.touched)
            if hit.shape[1] % len(hit) == 0
            for inner in _divisors(hit.shape[1] // len(hit))
            if _is_within(hit, torch.arange(hit.shape[1]) // inner % len(hit))
        ]

    @property
    def mixes(self) -> bool:
        return self.depends and not self.places

    def lies(self, layout: Layout, name: str) -> bool:
        """Whether the axis of that name lies where a layout has it, and only there."""
        said = [(dim, _indices(label, name)) for dim, label in enumerate(layout)]
        found = [(dim, at) for dim, at in said if at is not None]
        return bool(found) and all(_is_within(self.touched[dim], at) for dim, at in found)


def probe(
    function: Function, tensors: Sequence[Tensor], layouts: Sequence[Layout]
) -> list[Mapping[str, Finding]]:
    """Of each output, by token axis. tensors: with values; those with a layout of tokens are
    changed.
    """
    before = function(tensors)
    axes = {
        axis.name: axis.extent
        for layout in layouts
        for label in layout
        for axis in axes_of(label)
        if axis.token
    }
    findings: list[dict[str, Finding]] = [{} for _ in before]
    for name, count in axes.items():
        changed: list[list[Tensor]] = [[] for _ in before]
        for i in range(count):
            others = [_changed(*both, name, i) for both in zip(tensors, layouts, strict=True)]
            for masks, old, new in zip(changed, before, function(others), strict=True):
                masks.append(_differs(old, new))
        for found, masks in zip(findings, changed, strict=True):
            found[name] = _finding(torch.stack(masks))
    return list(findings)


def occurrences(tensor: Tensor, layout: Layout, name: str) -> Iterator[tuple[Tensor, int]]:
    """Where a token axis lies in a tensor: views of it, each with the dimension that is the axis
    alone.
    """
    for dim, label in enumerate(layout):
        start = 0
        for part in _parts(label):
            size = extent(part)
            at = next((i for i, one in enumerate(part) if one.token and one.name == name), None)
            if at is not None:
                view = tensor.narrow(dim, start, size).unflatten(dim, [a.extent for a in part])
                yield view, dim + at
            start += size


def _changed(tensor: Tensor, layout: Layout, name: str, index: int) -> Tensor:
    """With other values at one index of an axis."""
    new = tensor.clone()
    places = list(occurrences(new, layout, name))
    for view, dim in places:
        _change(view.select(dim, index))
    return new if places else tensor


def _change(at: Tensor) -> None:
    if at.is_floating_point() or at.is_complex():
        other = at * 1.7 + torch.randn_like(at) + 0.3
        at.copy_(torch.where(at.isfinite(), other, 1.0))
    elif at.dtype == torch.bool:
        at.logical_not_()
    else:
        at.add_(1)


def _differs(old: Tensor, new: Tensor) -> Tensor:
    # What is not a number on both sides has not changed.
    return (old != new) & ~((old != old) & (new != new))


def _finding(masks: Tensor) -> Finding:
    """masks: [indices of the axis, *shape of the output]."""
    rank = masks.ndim - 1
    others = [[d + 1 for d in range(rank) if d != dim] for dim in range(rank)]
    touched = tuple(masks.any(dim=tuple(dims)) if dims else masks for dims in others)
    return Finding(bool(masks.any()), touched)


def _is_within(touched: Tensor, at: Tensor) -> bool:
    """Whether each index touches those positions only at which it lies."""
    return not bool((touched & (at != torch.arange(len(touched))[:, None])).any())


def _indices(label: Label, name: str) -> Tensor | None:
    """Of each position of a dimension, the index of an axis there; -1 where it is of another part,
    None where the dimension has no such axis.
    """
    found: list[Tensor] = []
    for part in _parts(label):
        at = torch.full((extent(part),), -1)
        for i, axis in enumerate(part):
            if axis.token and axis.name == name:
                inner = math.prod(other.extent for other in part[i + 1 :])
                at = torch.arange(extent(part)) // inner % axis.extent
        found.append(at)
    every = torch.cat(found) if found else torch.empty(0)
    return every if bool((every >= 0).any()) else None


def _parts(label: Label) -> tuple[Product, ...]:
    return label.parts if isinstance(label, Joint) else (label,)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
