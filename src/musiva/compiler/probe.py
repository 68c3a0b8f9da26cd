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

from musiva.compiler.labels import Axis, Joint, Layout, Unlabelled, extents

__all__ = ["Finding", "probe", "random_like"]

Outputs = Sequence[Tensor]
Function = Callable[[Sequence[Tensor]], Outputs]


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one token axis and one output. place: the dimension and how many elements lie within an
    index of the axis there; None where the output mixes the axis, or does not depend on it.
    """

    place: tuple[int, int] | None
    depends: bool

    @property
    def mixes(self) -> bool:
        return self.depends and self.place is None


def probe(
    function: Function, tensors: Sequence[Tensor], layouts: Sequence[Layout]
) -> list[Mapping[str, Finding]]:
    """Of each output, by token axis. tensors: with values; those with a layout of tokens are
    changed. Raises Unlabelled where what is found is undecided: an axis could lie at two places.
    """
    before = function(tensors)
    axes = {axis.name: axis for layout in layouts for axis in _token_axes(layout)}
    findings: list[dict[str, Finding]] = [{} for _ in before]
    for name, axis in axes.items():
        changed: list[list[Tensor]] = [[] for _ in before]
        for i in range(axis.extent):
            others = [
                _changed(tensor, layout, name, i)
                for tensor, layout in zip(tensors, layouts, strict=True)
            ]
            for masks, old, new in zip(changed, before, function(others), strict=True):
                masks.append(_differs(old, new))
        for found, masks in zip(findings, changed, strict=True):
            found[name] = _located(name, axis.extent, masks)
    return list(findings)


def _token_axes(layout: Layout) -> Iterator[Axis]:
    for label in layout:
        if isinstance(label, Joint):
            raise Unlabelled("joint tokens are not probed")
        yield from (axis for axis in label if axis.token)


def _changed(tensor: Tensor, layout: Layout, name: str, index: int) -> Tensor:
    """With other values at one index of an axis."""
    if not any(axis.name == name for axis in _token_axes(layout)):
        return tensor
    flat = [axis for label in layout if not isinstance(label, Joint) for axis in label]
    view = tensor.reshape([axis.extent for axis in flat]).clone()
    at = view.select([axis.name for axis in flat].index(name), index)
    if tensor.is_floating_point():
        at.copy_(at * 1.7 + torch.randn_like(at) + 0.3)
    elif tensor.dtype == torch.bool:
        at.logical_not_()
    else:
        at.add_(1)
    return view.reshape(extents(layout))


def _differs(old: Tensor, new: Tensor) -> Tensor:
    if old.is_complex():
        old, new = torch.view_as_real(old), torch.view_as_real(new)
        return (old != new).any(-1)
    # What is not a number on both sides has not changed.
    return (old != new) & ~(old.isnan() & new.isnan()) if old.is_floating_point() else old != new


def _located(name: str, count: int, masks: Sequence[Tensor]) -> Finding:
    depends = any(bool(mask.any()) for mask in masks)
    if not depends:
        return Finding(None, depends=False)
    found = [
        (dim, inner)
        for dim, size in enumerate(masks[0].shape)
        if size % count == 0
        for inner in _divisors(size // count)
        if all(_only_there(mask, dim, inner, count, i) for i, mask in enumerate(masks))
    ]
    if len(found) > 1:
        raise Unlabelled(f"a probe of {name} is undecided: it could lie at {found}")
    return Finding(found[0] if found else None, depends=True)


def _only_there(mask: Tensor, dim: int, inner: int, count: int, index: int) -> bool:
    """Whether what changed lies at that index of the axis, if the axis lies there."""
    others = [d for d in range(mask.ndim) if d != dim]
    hit = mask.any(dim=tuple(others)) if others else mask
    at = torch.arange(mask.shape[dim]) // inner % count == index
    return not bool((hit & ~at).any())


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def random_like(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """An example for a probe."""
    if dtype == torch.bool:
        return torch.rand(tuple(shape), generator=generator) < 0.5
    if dtype.is_complex:
        return torch.view_as_complex(torch.randn((*shape, 2), generator=generator)).to(dtype)
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), generator=generator).to(dtype)
    return torch.randint(0, max(2, math.prod(shape)), tuple(shape), generator=generator).to(dtype)
