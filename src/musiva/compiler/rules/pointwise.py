"""Operators that look at each element alone."""

from __future__ import annotations

from musiva.compiler.call import Call, Outcome
from musiva.compiler.labels import broadcast, tokens, unknown

__all__ = ["RULES"]

POINTWISE = [
    "abs",
    "acos",
    "add",
    "addcdiv",
    "addcmul",
    "asin",
    "atan",
    "atan2",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "ceil",
    "celu",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "complex",
    "conj",
    "conj_physical",
    "cos",
    "div",
    "divide",
    "elu",
    "eq",
    "erf",
    "exp",
    "expm1",
    "floor",
    "floor_divide",
    "fmod",
    "ge",
    "gelu",
    "gt",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "leaky_relu",
    "lerp",
    "log",
    "log10",
    "log1p",
    "log2",
    "logical_and",
    "logical_not",
    "logical_or",
    "lt",
    "masked_fill",
    "maximum",
    "minimum",
    "mish",
    "mul",
    "multiply",
    "nan_to_num",
    "ne",
    "neg",
    "polar",
    "pow",
    "real",
    "reciprocal",
    "relu",
    "relu6",
    "remainder",
    "resolve_conj",
    "resolve_neg",
    "round",
    "rsqrt",
    "rsub",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "square",
    "sub",
    "subtract",
    "tan",
    "tanh",
    "to",
    "true_divide",
    "trunc",
    "type_as",
    "where",
    "xlogy",
    "_to_copy",
]
# In evaluation; what they return is not what they were given, but equal to it.
KEEP = ("alias", "clone", "contiguous", "detach", "dropout", "feature_dropout", "lift_fresh_copy")
FILL = ("empty_like", "full_like", "ones_like", "zeros_like")
NEW = ("new_empty", "new_full", "new_ones", "new_zeros")


def pointwise(call: Call) -> Outcome:
    layout = broadcast([call.layout_of(value) for value in call.operands])
    for value in call.operands:
        call.settle(value, layout)
    return Outcome((layout,) * len(call.shapes))


def keep(call: Call) -> Outcome:
    return Outcome((call.layout_of(call.operands[0]),), "keep")


def cast(call: Call) -> Outcome:
    """The type of another tensor."""
    value = call.operands[0]
    return Outcome((call.layout_of(value),), "cast", along=value.along)


def copy(call: Call) -> Outcome:
    """Another tensor in the place of one: nothing of that but its shape and type."""
    source = call.value("src")
    layout = broadcast([call.layout("self"), call.layout_of(source)])
    call.settle(source, layout)
    along = source.along
    if source.place or source.dense:
        along |= {name for label in call.layout_of(source) for name in tokens(label)}
    return Outcome((layout,), "copy", along=along)


def fill(call: Call) -> Outcome:
    """The same number everywhere: nothing of the operand but its shape."""
    return Outcome((call.layout("self"),), "fill", along=frozenset())


def new(call: Call) -> Outcome:
    layout = tuple(map(unknown, call.shapes[0], call.varying[0]))
    return Outcome((layout,), "fill", along=frozenset())


RULES = (
    dict.fromkeys(POINTWISE, pointwise)
    | dict.fromkeys(KEEP, keep)
    | dict.fromkeys(FILL, fill)
    | dict.fromkeys(NEW, new)
    | {"type_as": cast, "copy": copy}
)
