"""Operators that only say where elements lie: views, permutations, repetitions."""

from __future__ import annotations

from collections.abc import Sequence

from musiva.compiler.call import Call, Outcome, Value
from musiva.compiler.labels import (
    Axis,
    Joint,
    Label,
    Layout,
    Refine,
    Unlabelled,
    features,
    is_unknown,
    regroup,
    tokens,
    unknown,
)

__all__ = ["RULES"]


def view(call: Call) -> Outcome:
    return Outcome((regroup(call.layout_of(call.operands[0]), call.shapes[0]),), "shape")


def permute(call: Call) -> Outcome:
    layout = call.layout("self")
    dims = call.arguments["dims"]
    assert isinstance(dims, Sequence)
    return _ordered(layout, [int(dim) % len(layout) for dim in dims])


def transpose(call: Call) -> Outcome:
    layout = call.layout("self")
    order = list(range(len(layout)))
    if call.op == "t":
        return _ordered(layout, order[::-1])
    first, second = ("axis0", "axis1") if call.op == "swapaxes" else ("dim0", "dim1")
    a, b = call.dim(first, len(layout)), call.dim(second, len(layout))
    order[a], order[b] = order[b], order[a]
    return _ordered(layout, order)


def movedim(call: Call) -> Outcome:
    layout = call.layout("self")
    source, target = (_listed(call, name, len(layout)) for name in ("source", "destination"))
    order = [dim for dim in range(len(layout)) if dim not in source]
    for to, dim in sorted(zip(target, source, strict=True)):
        order.insert(to, dim)
    return _ordered(layout, order)


def expand(call: Call) -> Outcome:
    value = call.value("self")
    shape, flags = call.shapes[0], call.varying[0]
    layout = call.layout("self")
    out: list[Label] = list(map(unknown, shape, flags))
    for i, label in enumerate(layout, len(shape) - len(layout)):
        if value.shape[i - len(shape)] == shape[i]:
            out[i] = label
    return Outcome((tuple(out),), "spread")


def repeat(call: Call) -> Outcome:
    """Each dimension several times as a whole."""
    name = "repeats" if call.op == "repeat" else "dims"
    given = call.arguments[name]
    assert isinstance(given, Sequence)
    layout, rank = call.layout("self"), len(call.shapes[0])
    wide: Layout = ((),) * (rank - len(layout)) + layout
    missing = rank - len(given)
    more: list[Label] = [()] * missing
    more += [unknown(int(n), (name, i) in call.moving) for i, n in enumerate(given)]
    out = tuple(map(_product, more, wide))
    return Outcome((out,), "repeat", {"times": tuple(map(features, more))})


def repeat_interleave(call: Call) -> Outcome:
    """Each element of a dimension several times."""
    layout = call.layout("self")
    dim, times = call.dim("dim", len(layout)), call.number("repeats")
    more = unknown(times, ("repeats",) in call.moving)
    out = (*layout[:dim], _product(layout[dim], more), *layout[dim + 1 :])
    return Outcome((out,), "interleave", {"dim": dim, "times": features(more)})


def select(call: Call) -> Outcome:
    value, layout = call.value("self"), call.layout("self")
    dim = call.dim("dim", len(layout))
    index = _only_features(call, value, layout[dim], call.number("index"))
    out = (*layout[:dim], *layout[dim + 1 :])
    return Outcome((out,), "same", {"dims": {"dim": dim}, "with": {"index": index}})


def unbind(call: Call) -> Outcome:
    value, layout = call.value("self"), call.layout("self")
    dim = call.dim("dim", len(layout))
    if tokens(layout[dim]):
        _only_features(call, value, layout[dim], 0)
        raise Unlabelled("unbind takes repeated tokens apart")
    out = (*layout[:dim], *layout[dim + 1 :])
    return Outcome((out,) * len(call.shapes), "same", {"dims": {"dim": dim}})


def roll(call: Call) -> Outcome:
    layout = call.layout("self")
    dims = _listed(call, "dims", len(layout))
    if call.op == "roll" and not dims:
        raise Unlabelled("roll of all elements in their order")
    for dim in dims:
        _only_features(call, call.value("self"), layout[dim], 0)
    return Outcome((layout,), "same", {"dims": {"dims": tuple(dims)}})


def pad(call: Call) -> Outcome:
    layout, widths = call.layout("self"), call.arguments["pad"]
    assert isinstance(widths, Sequence)
    out = list(layout)
    for i in range(len(widths) // 2):
        if widths[2 * i] or widths[2 * i + 1]:
            dim = len(layout) - 1 - i
            _no_tokens(call, layout[dim])
            out[dim] = (Axis("padded", call.shapes[0][dim]),)
    return Outcome((tuple(out),))


def view_as_complex(call: Call) -> Outcome:
    *out, last = call.layout("self")
    _no_tokens(call, last)
    return Outcome((tuple(out),))


def view_as_real(call: Call) -> Outcome:
    return Outcome(((*call.layout("self"), (Axis("complex", 2),)),))


def pixel_shuffle(call: Call) -> Outcome:
    *lead, channels, high, wide = call.layout("self")
    r = call.number("upscale_factor")
    if tokens(channels) or isinstance(high, Joint) or isinstance(wide, Joint):
        raise Unlabelled("pixel_shuffle of tokens in channels")
    (inside, _) = regroup((channels,), (call.shapes[0][-3], r * r))
    out = (*lead, inside, (*high, Axis("place", r)), (*wide, Axis("place", r)))
    return Outcome((out,), "shuffle", {"times": r})


def pixel_unshuffle(call: Call) -> Outcome:
    *lead, channels, high, wide = call.layout("self")
    r = call.number("downscale_factor")
    cut = [_cut(label, r) for label in (high, wide)]
    out = (*lead, (Axis("unshuffled", call.shapes[0][-3]),), *cut)
    if tokens(channels):
        raise Unlabelled("pixel_unshuffle of tokens in channels")
    return Outcome((out,), "unshuffle", {"times": r})


def _cut(label: Label, inner: int) -> Label:
    """Without the innermost places."""
    if isinstance(label, Joint) or not label:
        raise Unlabelled("pixel_unshuffle of no places")
    last = label[-1]
    if last.token:
        raise Refine(last.name, inner)
    if last.extent % inner:
        raise Unlabelled(f"pixel_unshuffle by {inner} of {last.extent} places")
    rest = last.extent // inner
    return (*label[:-1], Axis(last.name, rest)) if rest > 1 else label[:-1]


def _ordered(layout: Layout, order: Sequence[int]) -> Outcome:
    return Outcome((tuple(layout[dim] for dim in order),), "order", {"order": tuple(order)})


def _listed(call: Call, name: str, rank: int) -> list[int]:
    given = call.arguments[name]
    return [int(dim) % rank for dim in (given if isinstance(given, Sequence) else [given])]  # type: ignore[call-overload]


def _product(outer: Label, inner: Label) -> Label:
    if isinstance(outer, Joint) or isinstance(inner, Joint):
        if outer and inner:
            raise Unlabelled("streams are repeated together")
        return outer or inner
    return (*outer, *inner)


def _only_features(call: Call, value: Value, label: Label, index: int) -> int:
    """Where along a dimension to look on rows. Raises Unlabelled where it differs from token to
    token.
    """
    named = tokens(label)
    if any(name in value.along for name in named):
        raise Unlabelled(f"{call.op} takes some of the tokens")
    if is_unknown(label):
        return 0
    if not named:
        return index
    if features(label) > 1:
        raise Unlabelled(f"{call.op} takes one of many repeated tokens")
    return 0


def _no_tokens(call: Call, label: Label) -> None:
    if tokens(label) or is_unknown(label):
        raise Unlabelled(f"{call.op} of tokens")


RULES = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten"), view
    ),
    "permute": permute,
    **dict.fromkeys(("transpose", "swapaxes", "t"), transpose),
    "movedim": movedim,
    "expand": expand,
    "expand_as": expand,
    "repeat": repeat,
    "tile": repeat,
    "repeat_interleave": repeat_interleave,
    "select": select,
    "unbind": unbind,
    "roll": roll,
    "flip": roll,
    "pad": pad,
    "constant_pad_nd": pad,
    "view_as_complex": view_as_complex,
    "view_as_real": view_as_real,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
