"""Calls of operators that put tensors together and take them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch

from musiva.compiler.labels import Axis, Joint, Label, Layout, extent, extents, feature
from musiva.perf.rule_cases.base import Case, Operand, aten
from musiva.perf.rule_cases.draw import Draw

__all__ = ["CASES"]

COUNT = 5


def _cat(name: str, draw: Draw) -> Iterator[Case]:
    op = getattr(aten, name).default
    for _ in range(2 * COUNT):
        layout, dim = _around(draw)
        layouts = [_at(layout, dim, label) for label in _behind(draw)]
        operands = [draw.some(layouts[0])]
        for own in layouts[1:]:
            operands.append(draw.other(draw.twisted(own) if draw.chance(0.1) else own))
        operands = draw.shuffled(operands)
        if draw.chance(0.2):
            empty = Operand(torch.empty(0, dtype=torch.float64), ((Axis("f", 0),),))
            operands.insert(draw.below(len(operands) + 1), empty)
        yield Case(op, [operands, _either(draw, dim, len(layout))])


def _around(draw: Draw) -> tuple[Layout, int]:
    """Dimensions among which there is one to put things along: frames and features."""
    layout = draw.shuffled([draw.pick([(draw.frames,), (), feature(3)]), feature(4), feature(1)])
    return tuple(layout), draw.below(len(layout))


def _behind(draw: Draw) -> list[Label]:
    """What is put behind one another."""
    image, rows, words = (draw.rows, draw.columns), (draw.rows,), (draw.words,)
    places = (draw.rows, Axis("place", 2))
    return draw.pick(
        [
            [feature(2), feature(3)],
            [feature(4), feature(1), feature(4)],
            [words, image],
            [image, words],
            [image, image],
            [words, feature(3), rows],
            [feature(1), image],
            [Joint((words, image)), (draw.marks,)],
            [places, words],
            [image],
        ]
    )


def _at(layout: Layout, dim: int, label: Label) -> Layout:
    return (*layout[:dim], label, *layout[dim + 1 :])


def _stack(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        other = draw.twisted(layout) if draw.chance(0.2) else layout
        operands = [draw.some(layout), draw.other(other), draw.other(layout)]
        yield Case(aten.stack.default, [operands[: draw.pick((2, 3))], draw.dim(len(layout) + 1)])


def _pad_sequence(draw: Draw) -> Iterator[Case]:
    for _ in range(COUNT):
        layout = draw.layout()
        operands = [draw.some(layout), draw.other(layout)][: draw.pick((1, 1, 2))]
        yield Case(aten.pad_sequence.default, [operands, draw.chance(0.5)])


def _span(draw: Draw, label: Label) -> tuple[int, int]:
    """From where to where: streams of those that are behind one another, or anything."""
    size = extent(label)
    if isinstance(label, Joint) and draw.chance(0.8):
        ends = [sum(map(_length, label.parts[:i])) for i in range(len(label.parts) + 1)]
        first = draw.below(len(label.parts))
        return ends[first], ends[first + 1 + draw.below(len(label.parts) - first)]
    # At no size is a piece empty that is not at another.
    several = [(0, 1), (0, size - 1), (1, size), (0, size), (0, size // 2)]
    found = draw.pick(several)
    return found if size > 1 else (0, 1)


def _length(part: tuple[Axis, ...]) -> int:
    return extent(part)


def _slice(draw: Draw) -> Iterator[Case]:
    for _ in range(3 * COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        size = extent(layout[dim])
        start, end = _span(draw, layout[dim])
        step = draw.pick((1, 1, 1, 2))
        some = draw.some(layout)
        last = draw.pick([end, end, end - size or end])
        first = draw.pick([start, start, start - size])
        yield Case(aten.slice.Tensor, [some, dim, first, last, step])


def _narrow(draw: Draw) -> Iterator[Case]:
    for _ in range(3 * COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        start, end = _span(draw, layout[dim])
        yield Case(aten.narrow.default, [draw.some(layout), dim, start, end - start])


def _scatter(draw: Draw) -> Iterator[Case]:
    for _ in range(3 * COUNT):
        layout = draw.layout()
        dim = draw.below(len(layout))
        label = layout[dim]
        start, end = _span(draw, label)
        step = draw.pick((1, 1, 2))
        # Every other place of as many behind, where there are.
        end = min(start + (end - start) * step, extent(label))
        size = len(range(start, end, step))
        source = _at(layout, dim, _within(label, start, size))
        operands = [draw.some(layout), draw.other(source)]
        yield Case(
            aten.slice_scatter.default,
            [*operands, _either(draw, dim, len(layout)), start, end, step],
        )


def _within(label: Label, start: int, size: int) -> Label:
    """A part that begins there and is as long, or features."""
    if size == extent(label):
        return label
    if isinstance(label, Joint):
        for i, part in enumerate(label.parts):
            if sum(map(_length, label.parts[:i])) == start and extent(part) == size:
                return part
    return feature(size)


def _split(draw: Draw) -> Iterator[Case]:
    for one, sizes, dim in _apart(draw):
        yield Case(aten.split.sizes, [one, sizes, dim])
    for _ in range(COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        size = max(extent(layout[dim]) // 2, 1)
        yield Case(aten.split.Tensor, [draw.some(layout), size, dim])


def _split_with_sizes(draw: Draw) -> Iterator[Case]:
    for one, sizes, dim in _apart(draw):
        yield Case(aten.split_with_sizes.default, [one, sizes, dim])


def _tensor_split(draw: Draw) -> Iterator[Case]:
    for one, sizes, dim in _apart(draw):
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        yield Case(aten.tensor_split.indices, [one, ends, dim])
    for _ in range(COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        yield Case(aten.tensor_split.sections, [draw.some(layout), 2, dim])


def _chunk(draw: Draw) -> Iterator[Case]:
    for _ in range(2 * COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        yield Case(aten.chunk.default, [draw.some(layout), 2, dim])


def _apart(draw: Draw) -> Iterator[tuple[Operand, list[int], int]]:
    """Sizes of pieces of a dimension."""
    for _ in range(2 * COUNT):
        layout = draw.layout()
        dim = draw.dim(len(layout))
        label = layout[dim]
        start, end = _span(draw, label)
        sizes = [n for n in (start, end - start, extent(label) - end) if n]
        if isinstance(label, Joint) and draw.chance(0.5):
            sizes = list(extents(label.parts))
        yield draw.some(layout), sizes, dim


def _either(draw: Draw, dim: int, rank: int) -> int:
    """Counted from the front or from the back."""
    return dim - rank if draw.chance(0.4) else dim


CASES: Mapping[str, Callable[[Draw], Iterator[Case]]] = {
    **{name: partial(_cat, name) for name in ("cat", "concat")},
    "stack": _stack,
    "pad_sequence": _pad_sequence,
    "slice": _slice,
    "narrow": _narrow,
    "slice_scatter": _scatter,
    "split": _split,
    "split_with_sizes": _split_with_sizes,
    "chunk": _chunk,
    "tensor_split": _tensor_split,
}
