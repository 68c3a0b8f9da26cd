"""Calls of operators that look at each element alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch._ops import OpOverload

from musiva.compiler.labels import Layout, extents
from musiva.compiler.rules.pointwise import FILL, KEEP, NEW, POINTWISE
from musiva.perf.rule_cases.base import Case, aten
from musiva.perf.rule_cases.draw import Domain, Draw

__all__ = ["CASES", "Form", "calls", "form"]

ANY, POSITIVE, UNIT, WHOLE = Domain.ANY, Domain.POSITIVE, Domain.UNIT, Domain.WHOLE
BROKEN, BITS, MASK, COMPLEX = Domain.BROKEN, Domain.BITS, Domain.MASK, Domain.COMPLEX


@dataclass(frozen=True, slots=True)
class Form:
    """How an operator is called: operands by their domain, and whatever else it takes. exact: not
    with types of 16 bits.
    """

    op: OpOverload
    args: tuple[object, ...]
    named: Mapping[str, object] = field(default_factory=dict)
    exact: bool = False


def form(op: OpOverload, *args: object, exact: bool = False, **named: object) -> Form:
    return Form(op, args, named, exact)


# What those of one operand take, where it is not any number.
DOMAINS = {
    **dict.fromkeys(("acos", "asin"), UNIT),
    **dict.fromkeys(("log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt"), POSITIVE),
    **dict.fromkeys(("isfinite", "isinf", "isnan", "nan_to_num"), BROKEN),
    **dict.fromkeys(("bitwise_not", "logical_not"), BITS),
    **dict.fromkeys(("conj", "conj_physical", "imag", "real", "resolve_conj"), COMPLEX),
}
ARITHMETIC = ("add", "div", "divide", "mul", "multiply", "sub", "subtract", "true_divide")
COMPARISONS = ("eq", "ge", "gt", "le", "lt", "ne")
FORMS: Mapping[str, Sequence[Form]] = {
    **{
        name: [form(op.Tensor, ANY, POSITIVE), form(op.Tensor, ANY, 1.5)]
        for name in ARITHMETIC
        for op in [getattr(aten, name)]
    },
    **{
        name: [form(op.Tensor, ANY, ANY), form(op.Scalar, ANY, 0.25), form(op.Tensor, WHOLE, WHOLE)]
        for name in COMPARISONS
        for op in [getattr(aten, name)]
    },
    **{
        name: [form(getattr(aten, name).Tensor, BITS, BITS)]
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor")
    },
    **{
        name: [form(getattr(aten, name).default, BITS, MASK)]
        for name in ("logical_and", "logical_or")
    },
    **{
        name: [form(getattr(aten, name).default, ANY, ANY)]
        for name in ("atan2", "maximum", "minimum")
    },
    **{
        name: [
            form(op.Tensor, ANY, POSITIVE),
            form(op.Scalar, ANY, 2),
            form(op.Tensor, WHOLE, WHOLE),
        ]
        for name in ("fmod", "remainder")
        for op in [getattr(aten, name)]
    },
    **{
        name: [form(op.default, ANY, -0.5, 0.5), form(op.Tensor, ANY, ANY, ANY)]
        for name in ("clamp", "clip")
        for op in [getattr(aten, name)]
    },
    **{
        name: [form(op.default, ANY, 0.1), form(op.Tensor, ANY, ANY)]
        for name in ("clamp_max", "clamp_min")
        for op in [getattr(aten, name)]
    },
    **{
        name: [form(getattr(aten, name).default, ANY, ANY, POSITIVE, value=0.5)]
        for name in ("addcdiv", "addcmul")
    },
    "complex": [form(aten.complex.default, ANY, ANY, exact=True)],
    "polar": [form(aten.polar.default, POSITIVE, ANY, exact=True)],
    "div": [
        form(aten.div.Tensor, ANY, POSITIVE),
        form(aten.div.Tensor, ANY, 1.5),
        form(aten.div.Tensor_mode, ANY, POSITIVE, rounding_mode="floor"),
    ],
    "floor_divide": [
        form(aten.floor_divide.default, ANY, POSITIVE),
        form(aten.floor_divide.default, WHOLE, WHOLE),
    ],
    "gelu": [form(aten.gelu.default, ANY), form(aten.gelu.default, ANY, approximate="tanh")],
    "lerp": [form(aten.lerp.Scalar, ANY, ANY, 0.3), form(aten.lerp.Tensor, ANY, ANY, UNIT)],
    "masked_fill": [form(aten.masked_fill.Scalar, ANY, MASK, -torch.inf)],
    "pow": [
        form(aten.pow.Tensor_Tensor, POSITIVE, ANY),
        form(aten.pow.Tensor_Scalar, ANY, 2),
        form(aten.pow.Scalar, 2.0, ANY),
    ],
    "round": [form(aten.round.default, ANY), form(aten.round.decimals, ANY, decimals=1)],
    "rsub": [form(aten.rsub.Tensor, ANY, ANY), form(aten.rsub.Scalar, ANY, 1.0)],
    "to": [form(aten.to.dtype, ANY, torch.float32), form(aten.to.dtype, BITS, torch.bool)],
    "where": [
        form(aten.where.self, MASK, ANY, ANY),
        form(aten.where.ScalarOther, MASK, ANY, 0.0),
        form(aten.where.ScalarSelf, MASK, 0.0, ANY),
    ],
    "xlogy": [form(aten.xlogy.Tensor, ANY, POSITIVE)],
    "_to_copy": [form(aten._to_copy.default, ANY, dtype=torch.bfloat16)],
    "type_as": [form(aten.type_as.default, ANY, WHOLE)],
    "dropout": [form(aten.dropout.default, ANY, 0.1, False)],
    "feature_dropout": [form(aten.feature_dropout.default, ANY, 0.1, False)],
    "full_like": [form(aten.full_like.default, ANY, 2.0)],
}


def calls(*forms: Form) -> Callable[[Draw], Iterator[Case]]:
    """Each form on some operands: the first one with tokens, others that meet it."""

    def cases(draw: Draw) -> Iterator[Case]:
        for one in forms:
            for _ in range(3):
                yield _case(draw, one)

    return cases


def _case(draw: Draw, one: Form) -> Case:
    layout, types = draw.layout(), draw.types(exact=one.exact)
    is_first = True
    args: list[object] = []
    for given in one.args:
        if not isinstance(given, Domain):
            args.append(given)
        elif is_first:
            own = draw.near(layout) if draw.chance(0.2) else layout
            args.append(draw.some(own, types[given], given))
            is_first = False
        else:
            args.append(draw.partner(layout, types[given], given))
    return Case(one.op, args, one.named)


def _copy(draw: Draw) -> Iterator[Case]:
    for _ in range(4):
        layout, types = draw.layout(), draw.types()
        into = draw.some(layout, types[ANY])
        source = draw.near(layout) if draw.chance(0.7) else draw.twisted(layout)
        yield Case(aten.copy.default, [into, draw.other(source, types[WHOLE], WHOLE)])


def _new(name: str) -> Callable[[Draw], Iterator[Case]]:
    """Of any shape."""
    more = [3.0] if name == "new_full" else []

    def cases(draw: Draw) -> Iterator[Case]:
        for _ in range(3):
            of: Layout = draw.layout()
            size = list(extents(draw.layout()))
            yield Case(getattr(aten, name).default, [draw.some(of), size, *more])

    return cases


def _alone(name: str) -> Sequence[Form]:
    """Of an operator of one operand."""
    return [form(getattr(aten, name).default, DOMAINS.get(name, ANY))]


CASES: Mapping[str, Callable[[Draw], Iterator[Case]]] = {
    **{name: calls(*FORMS.get(name) or _alone(name)) for name in (*POINTWISE, *KEEP, *FILL)},
    **{name: _new(name) for name in NEW},
    "copy": _copy,
}
