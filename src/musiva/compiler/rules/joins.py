"""Operators that put tensors together and take them apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from musiva.compiler.call import Call, Outcome, Value
from musiva.compiler.labels import (
    Axis,
    Joint,
    Label,
    Layout,
    Product,
    Unlabelled,
    extent,
    feature,
    features,
    is_unknown,
    tokens,
    unify,
    unknown,
)

__all__ = ["RULES"]


def cat(call: Call) -> Outcome:
    values = _listed(call, "tensors")
    rank = len(call.shapes[0])
    dim = call.dim("dim", rank)
    # What is empty adds nothing.
    values = [value for value in values if 0 not in value.shape]
    layouts = [call.layout_of(value) for value in values]
    others = _unified(layouts, dim)
    behind = [layout[dim] for layout in layouts]
    if len(layouts) > 1 and any(map(tokens, behind)):
        behind = [_streamed(*both) for both in zip(behind, values, strict=True)]
        label: Label = Joint(tuple(part for one in behind for part in _parts(one)))
        way = "join"
    elif len(layouts) == 1:
        label, way = behind[0], "cat"
    else:
        if any(map(is_unknown, behind)):
            raise Unlabelled(f"{call.op} of what is repeated as often as sizes have it")
        label, way = feature(sum(map(extent, behind))), "cat"
    out = (*others[:dim], label, *others[dim + 1 :])
    for value, own in zip(values, behind, strict=True):
        mine = call.layout_of(value)[dim]
        # What has so many features keeps them.
        new = own if is_unknown(mine) else mine
        call.settle(value, (*out[:dim], new, *out[dim + 1 :]))
    # Tokens that are the same for all samples are tokens from here on.
    along = call.along | frozenset(tokens(label)) if way == "join" else call.along
    return Outcome((out,), way, {"dims": {"dim": dim}}, along)


def stack(call: Call) -> Outcome:
    values = _listed(call, "tensors")
    layouts = [call.layout_of(value) for value in values]
    dim = call.dim("dim", len(layouts[0]) + 1)
    shared = _unified(layouts, None)
    for value in values:
        call.settle(value, shared)
    out = (*shared[:dim], feature(len(values)), *shared[dim:])
    return Outcome((out,), "cat", {"dims": {"dim": dim}})


def pad_sequence(call: Call) -> Outcome:
    """Of one sequence, which is as long as the longest."""
    values = _listed(call, "sequences")
    if len(values) > 1:
        raise Unlabelled("pad_sequence of sequences of several lengths")
    first, *others = call.layout_of(values[0])
    out = ((), first) if call.arguments.get("batch_first") else (first, ())
    return Outcome(((*out, *others),), "alone")


def cut(call: Call) -> Outcome:
    """A slice."""
    value, layout = call.value("self"), call.layout("self")
    dim = call.dim("dim", len(layout))
    size, to = value.shape[dim], call.shapes[0][dim]
    label = layout[dim]
    start, step = call.arguments.get("start") or 0, call.arguments.get("step") or 1
    if not isinstance(start, int):
        raise Unlabelled(f"{call.op} from {start!r}")
    start = min(start % size if start < 0 else start, size)
    if to == size:
        return Outcome((layout,), "keep")
    if isinstance(label, Joint) and step == 1:
        parts = _between(label, start, start + to)
        taken = label.parts[slice(*parts)]
        new: Label = taken[0] if len(taken) == 1 else Joint(taken)
        out = (*layout[:dim], new, *layout[dim + 1 :])
        named = frozenset(axis.name for part in taken for axis in part)
        gone = frozenset(tokens(label)) - named
        return Outcome((out,), "take", {"parts": (parts,)}, along=value.along - gone)
    if any(name in value.along for name in tokens(label)):
        raise Unlabelled("slice takes some of the tokens")
    if tokens(label) or is_unknown(label):
        if features(label) > 1 or (to > 1 and not call.varying[0][dim]):
            raise Unlabelled(f"{call.op} takes so many of repeated tokens")
        fewer = unknown(to, varies=True)
        return Outcome(((*layout[:dim], fewer, *layout[dim + 1 :]),), "shape")
    out = (*layout[:dim], feature(to), *layout[dim + 1 :])
    return Outcome((out,), "same", {"dims": {"dim": dim}})


def split(call: Call) -> Outcome:
    """Into several: of equal size, of given sizes, or so many."""
    value, layout = call.value("self"), call.layout("self")
    dim = call.dim("dim", len(layout))
    label, ends = layout[dim], [0]
    for shape in call.shapes:
        ends.append(ends[-1] + shape[dim])
    if isinstance(label, Joint):
        spans = [_between(label, a, b) for a, b in pairwise(ends)]
        taken = [label.parts[slice(*span)] for span in spans]
        outs = tuple(
            (*layout[:dim], part[0] if len(part) == 1 else Joint(part), *layout[dim + 1 :])
            for part in taken
        )
        return Outcome(outs, "take", {"parts": tuple(spans)})
    if any(name in value.along for name in tokens(label)):
        raise Unlabelled(f"{call.op} takes tokens apart")
    if tokens(label) or is_unknown(label):
        raise Unlabelled(f"{call.op} takes repeated tokens apart")
    outs = tuple((*layout[:dim], feature(shape[dim]), *layout[dim + 1 :]) for shape in call.shapes)
    return Outcome(outs, "same", {"dims": {"dim": dim}})


def scatter(call: Call) -> Outcome:
    """A slice replaced by another tensor."""
    value, layout = call.value("self"), call.layout("self")
    source = call.value("src")
    dim = call.dim("dim", len(layout))
    size, start, count = value.shape[dim], call.arguments.get("start") or 0, source.shape[dim]
    assert isinstance(start, int)
    start = min(start % size if start < 0 else start, size)
    label = layout[dim]
    if isinstance(label, Joint):
        if call.arguments.get("step") not in (None, 1):
            raise Unlabelled("slice_scatter writes some of the tokens")
        parts = _between(label, start, start + count)
        taken = label.parts[slice(*parts)]
        inner: Label = taken[0] if len(taken) == 1 else Joint(taken)
        call.settle(source, (*layout[:dim], inner, *layout[dim + 1 :]))
        return Outcome((layout,), "replace", {"parts": parts})
    if tokens(label) or is_unknown(label):
        raise Unlabelled("slice_scatter writes some of the tokens")
    call.settle(source, (*layout[:dim], feature(count), *layout[dim + 1 :]))
    return Outcome((layout,), "scatter", {"dim": dim})


def _listed(call: Call, name: str) -> list[Value]:
    given = call.arguments[name]
    assert isinstance(given, Sequence)
    if not all(isinstance(one, Value) for one in given):
        raise Unlabelled(f"{call.op} of something else than tensors")
    return list(given)  # pyright: ignore[reportReturnType]


def _unified(layouts: Sequence[Layout], but: int | None) -> Layout:
    """Of all dimensions but one."""
    out = list(layouts[0])
    for layout in layouts[1:]:
        for i, label in enumerate(layout):
            if i != but:
                out[i] = unify(out[i], label)
    return tuple(out)


def _streamed(label: Label, value: Value) -> Label:
    """Of what is put behind tokens. What has none of its own brings as many as it is long: the same
    for all samples, or of each as many as it has.
    """
    if isinstance(label, Joint):
        return label
    if is_unknown(label) and (value.place or len(label) > 1):
        raise Unlabelled("cat of tokens with what may be tokens")
    if not tokens(label):
        return (Axis(value.name, extent(label), True),)
    if len(tokens(label)) != len(label):
        raise Unlabelled("cat of places within tokens")
    return label


def _parts(label: Label) -> Sequence[Product]:
    return label.parts if isinstance(label, Joint) else (label,)


def _between(label: Joint, start: int, end: int) -> tuple[int, int]:
    """Which parts lie there. Raises Unlabelled where one is cut."""
    ends = [0]
    for part in label.parts:
        ends.append(ends[-1] + extent(part))
    if start not in ends or end not in ends:
        raise Unlabelled("streams are cut elsewhere than where they were joined")
    return ends.index(start), ends.index(end)


RULES = {
    "cat": cat,
    "concat": cat,
    "stack": stack,
    "pad_sequence": pad_sequence,
    "slice": cut,
    "narrow": cut,
    "slice_scatter": scatter,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), split),
}
