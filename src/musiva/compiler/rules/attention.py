"""Attention: which keys a query sees follows from the labels of both."""

from __future__ import annotations

from musiva.compiler.call import Call, Outcome, Value
from musiva.compiler.labels import (
    Axis,
    Joint,
    Label,
    Layout,
    Product,
    Unlabelled,
    axes_of,
    broadcast,
    extent,
    is_unknown,
    tokens,
    unify,
)

__all__ = ["RULES"]

# What keys of a group share, as `run.attend` names it.
OVER = {
    frozenset(): "sample",
    frozenset({"frames"}): "frame",
    frozenset({"rows", "columns"}): "column",
}


def attention(call: Call) -> Outcome:
    """[..., H, T, K]: dimensions before the heads fold tokens, so that each of theirs attends for
    itself; those of them along which keys and values differ make the groups.
    """
    query, key, value = (call.value(name) for name in ("query", "key", "value"))
    q, k, v = (call.layout_of(one) for one in (query, key, value))
    if len(q) < 3 or len(k) != len(q) or len(v) != len(q):
        raise Unlabelled("attention of unusual dimensions")
    lead = broadcast([q[:-3], k[:-3], v[:-3]])
    keys, asking = unify(k[-2], v[-2]), q[-2]
    if query.place and is_unknown(asking):
        # Queries that were learnt, of which sizes say how many there are: tokens of their own.
        asking = (Axis(query.name, extent(asking), True),)
    call.settle(query, (*lead, q[-3], asking, q[-1]))
    call.settle(key, (*lead, k[-3], keys, k[-1]))
    call.settle(value, (*lead, v[-3], keys, v[-1]))
    for label in (q[-3], q[-1], k[-3], k[-1], v[-3], v[-1]):
        if tokens(label) or is_unknown(label):
            raise Unlabelled("attention with tokens as heads or channels")
    if call.arguments.get("is_causal") or call.arguments.get("dropout_p"):
        raise Unlabelled("attention that is causal, or drops keys")
    _check_mask(call)
    queries, seen = _streams(asking), _streams(keys)
    if not queries or not seen:
        raise Unlabelled("attention to what are no tokens")
    along = key.along | value.along | _settled(call, (key, value))
    # Joint labels are of whole streams.
    folded = frozenset(name for label in lead for name in tokens(label)) & along
    if not all(name in along for part in seen for name in part):
        raise Unlabelled("attention to repeated tokens")
    if folded not in OVER:
        raise Unlabelled(f"attention within {', '.join(sorted(folded))}")
    if folded and len(seen) > 1:
        raise Unlabelled("attention within groups of several streams")
    out = (*lead, q[-3], asking, v[-1])
    over = {"over": OVER[folded], "queries": queries, "keys": seen}
    # The same query sees other keys in another group.
    own = query.along | _settled(call, (query,)) | folded
    return Outcome((out,), "attend", over, own, "attention")


def _check_mask(call: Call) -> None:
    mask = call.arguments.get("attn_mask")
    if mask is None:
        return
    if not isinstance(mask, Value) or not mask.place or mask.name not in call.open_masks:
        raise Unlabelled("attention with a mask")
    call.ignore(mask)


def _settled(call: Call, values: tuple[Value, ...]) -> frozenset[str]:
    layouts: list[Layout] = [call.layout_of(one) for one in values if one.dense or one.place]
    return frozenset(name for layout in layouts for label in layout for name in tokens(label))


def _streams(label: Label) -> tuple[Product, ...]:
    """The tokens of each part of a sequence, one part for each stream."""
    parts = label.parts if isinstance(label, Joint) else (label,)
    names = tuple(tuple(axis.name for axis in axes_of(part) if axis.token) for part in parts)
    return names if all(names) else ()  # pyright: ignore[reportReturnType]


RULES = {"scaled_dot_product_attention": attention}
