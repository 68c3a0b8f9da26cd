"""Operators along whole dimensions: sums, norms, softmax, sorting, looking up."""

from __future__ import annotations

from musiva.compiler.call import Call, Outcome
from musiva.compiler.labels import Label, Layout, Unlabelled, is_unknown, tokens, unknown

__all__ = ["RULES"]

REDUCTIONS = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "linalg_vector_norm",
    "logsumexp",
    "max",
    "mean",
    "min",
    "norm",
    "prod",
    "std",
    "sum",
    "var",
    "var_mean",
]
ALONG = ("_softmax", "_log_softmax", "cumsum", "cumprod", "log_softmax", "softmax", "sort", "topk")


def reduction(call: Call) -> Outcome:
    """keepdim keeps a dimension of 1."""
    layout = call.layout_of(call.operands[0])
    dims = call.dims("dim", len(layout))
    _features_only(call, [layout[dim] for dim in dims])
    kept = bool(call.arguments.get("keepdim", False))
    out: Layout = tuple(
        () if i in dims else label for i, label in enumerate(layout) if kept or i not in dims
    )
    return Outcome((out,) * len(call.shapes), "same", {"dims": {"dim": dims}})


def along(call: Call) -> Outcome:
    layout = call.layout_of(call.operands[0])
    dim = call.dim("dim", len(layout))
    _features_only(call, [layout[dim]])
    outs = tuple(
        (*layout[:dim], unknown(shape[dim], varies=False), *layout[dim + 1 :])
        for shape in call.shapes
    )
    return Outcome(outs, "same", {"dims": {"dim": dim}})


def last_norm(call: Call) -> Outcome:
    """Over the last dimensions."""
    layout = call.layout("input")
    over = call.arguments["normalized_shape"]
    assert isinstance(over, list | tuple)
    _features_only(call, layout[len(layout) - len(over) :])
    rest = tuple(_cut(layout, len(shape)) for shape in call.shapes[1:])
    return Outcome((layout, *rest), "same")


def embedding(call: Call) -> Outcome:
    layout = (*call.layout("indices"), unknown(call.shapes[0][-1], varies=False))
    return Outcome((layout,), "same", {"align": False})


def one_hot(call: Call) -> Outcome:
    return Outcome(((*call.layout("self"), unknown(call.shapes[0][-1], varies=False)),))


def gather(call: Call) -> Outcome:
    layout, index = call.layout("self"), call.layout("index")
    dim = call.dim("dim", len(layout))
    _features_only(call, [layout[dim], index[dim]])
    out: list[Label] = list(layout)
    out[dim] = index[dim]
    same = [i for i in range(len(layout)) if i != dim]
    if any(tokens(layout[i]) != tokens(index[i]) for i in same):
        raise Unlabelled("gather across tokens")
    return Outcome((tuple(out),), "same", {"dims": {"dim": dim}})


def _cut(layout: Layout, rank: int) -> Layout:
    """Of the statistics that some norms return."""
    assert rank == len(layout)
    return (*layout[:-1], ())


def _features_only(call: Call, labels: list[Label] | Layout) -> None:
    if any(tokens(label) or is_unknown(label) for label in labels):
        raise Unlabelled(f"{call.op} looks across tokens")


RULES = {
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(ALONG, along),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), last_norm),
    "embedding": embedding,
    "one_hot": one_hot,
    "gather": gather,
}
