"""Operators along whole dimensions: sums, norms, softmax, sorting, looking up."""

from __future__ import annotations

from collections.abc import Sequence

from musiva.compiler.call import Call, Outcome
from musiva.compiler.labels import (
    Joint,
    Label,
    Layout,
    Unlabelled,
    axes_of,
    extent,
    feature,
    is_unknown,
    tokens,
    unify,
)
from musiva.compiler.rules.pointwise import pointwise

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
# They take one dimension, or none.
ONE = ("argmax", "argmin")
ALONG = ("_softmax", "_log_softmax", "cumsum", "cumprod", "log_softmax", "softmax", "sort", "topk")


def reduction(call: Call) -> Outcome:
    """keepdim keeps a dimension of 1."""
    if call.has("other"):
        return pointwise(call)
    given = call.arguments.get("dim")
    layout = call.layout_of(call.operands[0])
    dims = call.dims("dim", len(layout))
    kept = bool(call.arguments.get("keepdim", False))
    out: Layout = tuple(
        () if i in dims else label for i, label in enumerate(layout) if kept or i not in dims
    )
    if call.op in ("mean", "sum") and _pools(call, layout, dims):
        how = {"mean": call.op == "mean"}
        return Outcome((out,), "pool", how, frozenset(), "a sum over all tokens")
    _features_only(call, [layout[dim] for dim in dims])
    if "dim" not in call.arguments or (given is None and call.op in ONE):
        # On rows it would be of all of them, too.
        raise Unlabelled(f"{call.op} of all elements")
    over = dims[0] if isinstance(given, int) else dims
    return Outcome((out,) * len(call.shapes), "same", {"dims": {"dim": over}})


def _pools(call: Call, layout: Layout, dims: Sequence[int]) -> bool:
    """Whether these dimensions are all tokens of a stream, and nothing else."""
    over: Label = tuple(
        axis for dim in dims if not isinstance(layout[dim], Joint) for axis in axes_of(layout[dim])
    )
    rest = [label for i, label in enumerate(layout) if i not in dims]
    joint = any(isinstance(layout[dim], Joint) for dim in dims)
    return not joint and call.is_whole(over) and not any(map(tokens, rest))


def along(call: Call) -> Outcome:
    layout = call.layout_of(call.operands[0])
    dim = call.dim("dim", len(layout))
    _features_only(call, [layout[dim]])
    outs = tuple((*layout[:dim], feature(shape[dim]), *layout[dim + 1 :]) for shape in call.shapes)
    return Outcome(outs, "same", {"dims": {"dim": dim}})


def last_norm(call: Call) -> Outcome:
    """Over the last dimensions."""
    layout = call.layout("input")
    over = call.arguments["normalized_shape"]
    assert isinstance(over, list | tuple)
    _features_only(call, layout[len(layout) - len(over) :])
    if not all(call.value(name).place for name in ("weight", "bias") if call.has(name)):
        raise Unlabelled(f"{call.op} with scales that are no weights")
    # The statistics that some norms return.
    rest = (*layout[: len(layout) - len(over)], *[()] * len(over))
    return Outcome((layout, *[rest] * (len(call.shapes) - 1)), "same")


def embedding(call: Call) -> Outcome:
    if not call.value("weight").place:
        raise Unlabelled("embedding in a table that is not a weight")
    layout = (*call.layout("indices"), feature(call.shapes[0][-1]))
    return Outcome((layout,), "same", {"align": False})


def one_hot(call: Call) -> Outcome:
    return Outcome(((*call.layout("self"), feature(call.shapes[0][-1])),))


def gather(call: Call) -> Outcome:
    layout, index = call.layout("self"), call.layout("index")
    dim = call.dim("dim", len(layout))
    _features_only(call, [layout[dim], index[dim]])
    out: list[Label] = list(layout)
    out[dim] = index[dim]
    same = [i for i in range(len(layout)) if i != dim]
    if any(tokens(layout[i]) != tokens(index[i]) for i in same):
        raise Unlabelled("gather across tokens")
    for i in same:
        if extent(layout[i]) != extent(index[i]):
            raise Unlabelled("gather from some of a dimension")
        out[i] = unify(layout[i], index[i])
    if call.value("self").place or call.value("index").place:
        raise Unlabelled("gather of what is the same for all samples")
    return Outcome((tuple(out),), "same", {"dims": {"dim": dim}})


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
