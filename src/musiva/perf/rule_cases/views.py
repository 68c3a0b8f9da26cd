"""Calls of operators that only say where elements lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch

from musiva.compiler.labels import Axis, Joint, Label, Layout, extent, extents, feature, tokens
from musiva.perf.rule_cases.base import Case, aten
from musiva.perf.rule_cases.draw import Domain, Draw

__all__ = ["CASES"]

COUNT = 5


def _view(name: str, draw: Draw) -> Iterator[Case]:
    op = getattr(aten, name).default
    for _ in range(COUNT):
        layout = draw.layout()
        yield Case(op, [draw.some(layout), _shape(draw, layout)])


def _shape(draw: Draw, layout: Layout) -> list[int]:
    """The same axes, cut elsewhere; or something that does not fit them."""
    sizes: list[int] = []
    for label in layout:
        for axis in () if isinstance(label, Joint) else label:
            halves = axis.token is False and axis.extent == 4 and draw.chance(0.5)
            sizes += [2, 2] if halves else [axis.extent]
        sizes += [extent(label)] if isinstance(label, Joint) else []
    found: list[int] = []
    merges = draw.pick((0.0, 0.3, 0.5))
    for size in sizes:
        if found and draw.chance(merges):
            found[-1] *= size
        else:
            found.append(size)
        found += [1] if draw.chance(0.15) else []
    return draw.shuffled(found) if draw.chance(0.25) else found


def _unsqueeze(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        yield Case(aten.unsqueeze.default, [draw.some(layout), draw.dim(len(layout) + 1)])


def _squeeze(draw: Draw) -> Iterator[Case]:
    for _ in range(2):
        layout = draw.near(draw.layout())
        yield Case(aten.squeeze.default, [draw.some(layout)])
        layout = draw.layout()
        yield Case(aten.squeeze.dim, [draw.some(layout), draw.dim(len(layout))])
        layout = draw.layout(())
        dims = draw.shuffled(range(len(layout)))[:2]
        yield Case(aten.squeeze.dims, [draw.some(layout), dims])


def _flatten(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        start = draw.below(len(layout))
        end = start + draw.below(len(layout) - start)
        end -= len(layout) if draw.chance(0.5) else 0
        yield Case(aten.flatten.using_ints, [draw.some(layout), start, end])


def _unflatten(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        label = layout[dim]
        sizes = [1, extent(label)]
        if not isinstance(label, Joint) and len(label) > 1:
            sizes = [axis.extent for axis in label]
        yield Case(
            aten.unflatten.int,
            [draw.some(layout), dim, sizes[::-1] if draw.chance(0.3) else sizes],
        )


def _permute(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        dims = [_either(draw, dim, len(layout)) for dim in draw.shuffled(range(len(layout)))]
        yield Case(aten.permute.default, [draw.some(layout), dims])


def _transpose(name: str, draw: Draw) -> Iterator[Case]:
    op = aten.transpose.int if name == "transpose" else aten.swapaxes.default
    for _ in range(COUNT):
        layout = draw.layout()
        first, second = draw.dim(len(layout)), draw.dim(len(layout))
        yield Case(op, [draw.some(layout), first, second])


def _t(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.shuffled([draw.pick([draw.label(), draw.joint()]), feature(4)])
        yield Case(aten.t.default, [draw.some(tuple(layout[: draw.pick((1, 2, 2))]))])


def _movedim(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout(feature(2))
        rank = len(layout)
        yield Case(aten.movedim.int, [draw.some(layout), draw.dim(rank), draw.dim(rank)])
        count = draw.pick((1, 2))
        source, target = (
            [_either(draw, dim, rank) for dim in draw.shuffled(range(rank))[:count]]
            for _ in range(2)
        )
        yield Case(aten.movedim.intlist, [draw.some(layout), source, target])


def _expand(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        near = draw.near(layout)
        missing = len(layout) - len(near)
        sizes = list(extents(layout))
        for i, label in enumerate(near, missing):
            sizes[i] = -1 if label == layout[i] and draw.chance(0.3) else sizes[i]
        yield Case(aten.expand.default, [draw.some(near), sizes])


def _expand_as(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        yield Case(aten.expand_as.default, [draw.some(draw.near(layout)), draw.other(layout)])


def _repeat(name: str, draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        times = [draw.pick((1, 1, 1, 2)) for _ in range(len(layout) + draw.pick((0, 0, 1)))]
        # As often as there are tokens, here and there.
        times[draw.below(len(times))] = draw.pick((1, 3, draw.words.extent))
        if name == "tile":
            times = times[draw.pick((0, 0, 1)) :]
        yield Case(getattr(aten, name).default, [draw.some(layout), times])


def _repeat_interleave(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        times = draw.pick((2, 3, draw.words.extent))
        dim = draw.dim(len(layout)) if draw.chance(0.9) else None
        yield Case(aten.repeat_interleave.self_int, [draw.some(layout), times, dim])


def _select(draw: Draw) -> Iterator[Case]:
    for _ in range(2 * COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        size = extent(layout[dim])
        yield Case(aten.select.int, [draw.some(layout), dim, draw.dim(size)])


def _unbind(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        yield Case(aten.unbind.int, [draw.some(layout), draw.dim(len(layout))])


def _roll(draw: Draw) -> Iterator[Case]:
    for _ in range(2 * COUNT):
        layout = draw.layout()
        # Without dimensions, of all elements in their order.
        dims = _some_dims(draw, layout)[: draw.pick((0, 1, 1, 2))]
        shifts = [draw.pick((-1, 1, 2)) for _ in dims] or [1]
        yield Case(aten.roll.default, [draw.some(layout), shifts, dims])


def _flip(draw: Draw) -> Iterator[Case]:
    for _ in range(2 * COUNT):
        layout = draw.layout()
        dims = _some_dims(draw, layout)[: draw.pick((0, 1, 1, 2))]
        yield Case(aten.flip.default, [draw.some(layout), dims])


def _pad(name: str, draw: Draw) -> Iterator[Case]:
    op, more = getattr(aten, name).default, ["constant"] if name == "pad" else []
    for _ in range(2 * COUNT):
        layout = draw.layout()
        some = [draw.pick((0, 0, 1, 2)) for _ in range(2 * draw.pick((1, 1, 2)))]
        widths = some[: 2 * len(layout)]
        yield Case(op, [draw.some(layout), widths, *more, 0.5])


def _view_as_complex(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        # Tokens of which there are two at any size are no parts of a number.
        last: Label = draw.pick([feature(2), feature(2), (draw.marks,)])
        layout = draw.layout(last) if "marks" not in tokens(last) else (feature(3), last)
        yield Case(aten.view_as_complex.default, [draw.some(layout, torch.float64)])


def _view_as_real(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        dtype = draw.types()[Domain.COMPLEX]
        yield Case(aten.view_as_real.default, [draw.some(draw.layout(), dtype)])


def _pixel_shuffle(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        lead, high, wide, other = map(_product, draw.distinct()[:4])
        channels: Label = draw.pick([feature(12), feature(4), (*other, Axis("f", 4))])
        high = draw.pick([high, high, (Axis("f", 3),)])
        layout = (*draw.pick([(lead,), ((),), ()]), channels, high, wide)
        yield Case(aten.pixel_shuffle.default, [draw.some(layout), 2])


def _pixel_unshuffle(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        lead, high, wide, other = map(_product, draw.distinct()[:4])
        cut: list[Label] = [
            # With places, with more of them than are taken, with none, or without tokens.
            draw.pick([(*label, Axis("q", 2)), (*label, Axis("q", 4)), (Axis("q", 2), *label)])
            for label in (high, wide)
        ]
        cut[0] = draw.pick([cut[0], cut[0], feature(4)])
        channels: Label = draw.pick([feature(3), feature(3), other])
        layout = (*draw.pick([(lead,), ()]), channels, *cut)
        yield Case(aten.pixel_unshuffle.default, [draw.some(layout), 2])


def _product(label: Label) -> tuple[Axis, ...]:
    assert not isinstance(label, Joint)
    return label


def _some_dims(draw: Draw, layout: Layout) -> list[int]:
    return [_either(draw, dim, len(layout)) for dim in draw.shuffled(range(len(layout)))]


def _either(draw: Draw, dim: int, rank: int) -> int:
    """Counted from the front or from the back."""
    return dim - rank if draw.chance(0.4) else dim


CASES: Mapping[str, Callable[[Draw], Iterator[Case]]] = {
    **{name: partial(_view, name) for name in ("view", "_unsafe_view", "reshape")},
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "flatten": _flatten,
    "unflatten": _unflatten,
    "permute": _permute,
    **{name: partial(_transpose, name) for name in ("transpose", "swapaxes")},
    "t": _t,
    "movedim": _movedim,
    "expand": _expand,
    "expand_as": _expand_as,
    **{name: partial(_repeat, name) for name in ("repeat", "tile")},
    "repeat_interleave": _repeat_interleave,
    "select": _select,
    "unbind": _unbind,
    "roll": _roll,
    "flip": _flip,
    **{name: partial(_pad, name) for name in ("pad", "constant_pad_nd")},
    "view_as_complex": _view_as_complex,
    "view_as_real": _view_as_real,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}
