"""Operators that contract dimensions: linear layers, products of matrices, convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from musiva.compiler.call import Call, Outcome
from musiva.compiler.labels import (
    Joint,
    Label,
    Layout,
    Refine,
    Unlabelled,
    broadcast,
    extent,
    feature,
    is_unknown,
    tokens,
    unify,
)

__all__ = ["RULES"]

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


def linear(call: Call) -> Outcome:
    layout = call.layout("input")
    _no_tokens(call, layout[-1])
    if not all(call.value(name).place for name in ("weight", "bias") if call.has(name)):
        raise Unlabelled("linear with a matrix that is not a weight")
    return Outcome(((*layout[:-1], feature(call.shapes[0][-1])),), "linear")


def matmul(call: Call) -> Outcome:
    """Matrices by matrices, with any dimensions before them."""
    a, b = call.operands[-2:]
    left, right = call.layout_of(a), call.layout_of(b)
    if len(left) < 2 or len(right) < 2:
        raise Unlabelled(f"{call.op} of vectors")
    lead = broadcast([left[:-2], right[:-2]])
    inner = unify(left[-1], right[-2])
    outer = (left[-2], right[-1])
    call.settle(a, (*lead, outer[0], inner))
    call.settle(b, (*lead, inner, outer[1]))
    if call.is_whole(inner) and not any(map(tokens, (*lead, *outer))):
        # Linear attention sums keys times values (Katharopoulos et al., 2020).
        said = "a sum over all tokens"
        return Outcome(((*lead, *outer),), "reduce", along=frozenset(), mixes=said)
    _no_tokens(call, inner)
    if tokens(outer[0]) and tokens(outer[1]):
        raise Unlabelled(f"{call.op} compares tokens with tokens")
    if (isinstance(outer[0], Joint) and b.along) or (isinstance(outer[1], Joint) and a.along):
        raise Unlabelled(f"{call.op} of several streams")
    tables = [not (one.along or one.place or one.dense) for one in (a, b)]
    if tables[0] != tables[1] and any(map(tokens, outer)) and not any(map(tokens, lead)):
        return Outcome(((*lead, *outer),), "apply", {"left": tables[0]})
    return Outcome(((*lead, *outer),), "same")


def addmm(call: Call) -> Outcome:
    layout = call.layout("mat1")
    _no_tokens(call, layout[-1])
    if not call.value("mat2").place:
        raise Unlabelled("addmm of a matrix that is not a weight")
    added = call.layout("self")
    for label in added[-1:]:
        _no_tokens(call, label)
    lead = broadcast([layout[:1], added[:-1]])
    out = (*lead, feature(call.shapes[0][-1]))
    call.settle(call.value("self"), out)
    return Outcome((out,), "same")


def outer(call: Call) -> Outcome:
    one, two = call.layout("self"), call.layout("vec2")
    if tokens(one[0]) and tokens(two[0]):
        raise Unlabelled("outer compares tokens with tokens")
    return Outcome(((one[0], two[0]),), "outer")


def einsum(call: Call) -> Outcome:
    equation = call.arguments["equation"]
    assert isinstance(equation, str)
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    if not arrow or "." in equation:
        raise Unlabelled(f"einsum {equation!r}")
    found: dict[str, Label] = {}
    operands = call.operands
    for letters, value in zip(inputs.split(","), operands, strict=True):
        for letter, label in zip(letters, call.layout_of(value), strict=True):
            found[letter] = unify(found.get(letter, ()), label)
    sets = []
    for letters, value in zip(inputs.split(","), operands, strict=True):
        call.settle(value, tuple(found[letter] for letter in letters))
        sets.append({letter for letter in letters if tokens(found[letter])})
    for letter, label in found.items():
        if letter not in output:
            _no_tokens(call, label)
    if not any(one == set().union(*sets) for one in sets):
        raise Unlabelled("einsum compares tokens with tokens")
    return Outcome((tuple(found[letter] for letter in output),), "einsum")


def convolution(call: Call) -> Outcome:
    """On each token alone where its windows are tokens, or single positions; with `run.conv` where
    they overlap on the grid of tokens.
    """
    layout, weight = call.layout("input"), call.value("weight")
    rank = CONVOLUTIONS[call.op]
    if len(layout) != rank + 2 or not weight.place:
        raise Unlabelled(f"{call.op} of {len(layout)} dimensions")
    _no_tokens(call, layout[1])
    kernel = weight.shape[2:]
    stride, padding, dilation = (
        _each(call, name, rank) for name in ("stride", "padding", "dilation")
    )
    out: list[Label] = []
    alone = True
    for label, k, s, p, d, to in zip(
        layout[2:], kernel, stride, padding, dilation, call.shapes[0][2:], strict=True
    ):
        if k == s == 1 and p == 0:
            out.append(label)
        elif k == s and p == 0 and d == 1 and not isinstance(label, Joint) and label:
            out.append(_within(call, label, k))
        elif tokens(label) and s == 1 and to == extent(label):
            alone = False
            out.append(label)
        else:
            raise Unlabelled(f"{call.op} with a kernel of {k}, stride {s}, padding {p}")
    outcome = (layout[0], feature(call.shapes[0][1]), *out)
    if alone:
        if call.number("groups") != 1:
            raise Unlabelled(f"{call.op} in groups")
        return Outcome((outcome,), "patch")
    spatial: Layout = layout[2:]
    if rank != 2 or any(
        len(tokens(x)) != 1 or isinstance(x, Joint) or len(x) != 1 for x in spatial
    ):
        raise Unlabelled(f"{call.op} over tokens that lie in no grid of two dimensions")
    return Outcome((outcome,), "conv", mixes=f"a window of {'x'.join(map(str, kernel))} tokens")


def _within(call: Call, label: Label, places: int) -> Label:
    """A dimension without the places that one window covers."""
    assert not isinstance(label, Joint)
    last = label[-1]
    if last.token:
        raise Refine(last.name, places)
    if last.token is None or last.extent % places:
        raise Unlabelled(f"{call.op}: windows of {places} of {last.extent} places")
    outer, _ = last.split(last.extent // places)
    return (*label[:-1], *([outer] if outer.extent > 1 else []))


def _each(call: Call, name: str, rank: int) -> list[int]:
    given = call.arguments[name]
    if isinstance(given, str):
        raise Unlabelled(f"{call.op}: {name} {given!r}")
    listed = list(given) if isinstance(given, Sequence) else [given]
    return [int(n) for n in (listed * rank if len(listed) == 1 else listed)]  # type: ignore[call-overload]


def _no_tokens(call: Call, label: Label) -> None:
    if tokens(label) or is_unknown(label):
        raise Unlabelled(f"{call.op} sums over tokens")


RULES = {
    "linear": linear,
    "addmm": addmm,
    **dict.fromkeys(("matmul", "bmm", "mm"), matmul),
    "outer": outer,
    "einsum": einsum,
    **dict.fromkeys(CONVOLUTIONS, convolution),
}
