"""Attention over packs by `scaled_dot_product_attention` on strided views.

T rows, G groups, L rows of a group, H heads, K channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from musiva.core.pack import Groups, Pack, Rows
from musiva.core.run import QKV, Over, Streams
from musiva.ops.attention.heads import attend_by_heads, prefers_heads

__all__ = ["attend"]


def attend(qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample") -> Streams:
    """See `Run.attend`."""
    queried = [name for name, (q, _, _) in qkv.items() if q is not None]
    if over == "sample":
        if queried == ["image"] or len(qkv) == 1:
            return {queried[0]: _attend_samples(queried[0], qkv, pack)}
        return _attend_joint(qkv, pack)
    if len(qkv) != 1:
        raise ValueError(
            f"over {over!r}: only rows of one stream can be grouped so, got {sorted(qkv)}"
        )
    ((name, (q, k, v)),) = qkv.items()
    assert q is not None
    assert k is not None
    assert v is not None
    return {name: _attend_groups(q, k, v, pack.streams[name].groups(over))}


def _attend_samples(name: str, qkv: Mapping[str, QKV], pack: Pack) -> Tensor:
    """Queries of one stream; keys of the same stream or of one or more others."""
    sources = [
        (pack.streams[n], k, v) for n, (_, k, v) in qkv.items() if k is not None and v is not None
    ]
    if len(sources) != 1:
        return _attend_joint(qkv, pack)[name]
    q_THK, ((key_rows, k_THK, v_THK),) = qkv[name][0], sources
    assert q_THK is not None
    rows, pieces = pack.streams[name], []
    key_rows.require_complete()
    for first, count in _runs(rows, key_rows):
        segment, keys = rows.segments[first], key_rows.segments[first]
        if not keys.length or not segment.length:
            continue
        end = segment.start + count * segment.pitch
        q_GLHK = q_THK[segment.start : end].unflatten(0, (count, segment.pitch))
        k_GLHK, v_GLHK = (
            x[keys.start : keys.start + count * keys.pitch].unflatten(0, (count, keys.pitch))[
                :, : keys.length
            ]
            for x in (k_THK, v_THK)
        )
        pieces.append((segment.start, _sdpa(q_GLHK, k_GLHK, v_GLHK).flatten(0, 1)))
    return _assemble(pieces, q_THK)


def _attend_joint(qkv: Mapping[str, QKV], pack: Pack) -> Streams:
    """Several streams in one attention, a sample branch at a time."""
    pieces: dict[str, list[tuple[int, Tensor]]] = {
        n: [] for n, (q, _, _) in qkv.items() if q is not None
    }
    for name, (_, k, _) in qkv.items():
        if k is not None:
            pack.streams[name].require_complete()
    for i in range(pack.num_branches):
        at = {name: pack.streams[name].segments[i] for name in qkv}
        k_LHK, v_LHK = (
            torch.cat(
                [
                    x[at[n].start : at[n].start + at[n].length]
                    for n, y in qkv.items()
                    if (x := y[j]) is not None
                ]
            )
            for j in (1, 2)
        )
        parts = {
            n: q[at[n].start : at[n].start + at[n].pitch]
            for n, (q, _, _) in qkv.items()
            if q is not None
        }
        q_LHK = torch.cat(list(parts.values()))
        if not q_LHK.shape[0] or not k_LHK.shape[0]:
            continue
        out_LHK = _sdpa(q_LHK[None], k_LHK[None], v_LHK[None])[0]
        for n, part in zip(parts, out_LHK.split([q.shape[0] for q in parts.values()]), strict=True):
            pieces[n].append((at[n].start, part))
    return {n: _assemble(placed, q) for n, placed in pieces.items() if (q := qkv[n][0]) is not None}


def _attend_groups(
    q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, groups: tuple[Groups, ...]
) -> Tensor:
    """Self-attention inside frames, columns or windows."""
    pieces, windows = [], []
    for g in groups:
        if not g.count or not g.length:
            continue
        if g.index_GL is not None:
            windows.append(
                (g.index_GL, _sdpa(q_THK[g.index_GL], k_THK[g.index_GL], v_THK[g.index_GL]))
            )
            continue
        span = slice(g.start, g.start + g.count * g.length)
        part_GLHK = _sdpa(*(_grouped(x[span], g) for x in (q_THK, k_THK, v_THK)))
        by_rows = part_GLHK if g.member_stride == 1 else part_GLHK.transpose(0, 1)
        pieces.append((g.start, by_rows.flatten(0, 1)))
    out_THK = _assemble(pieces, q_THK)
    for index_GL, part_GLHK in windows:
        out_THK = out_THK.index_put((index_GL,), part_GLHK)
    return out_THK


def _assemble(pieces: list[tuple[int, Tensor]], like_THK: Tensor) -> Tensor:
    """Lay pieces out at their first rows, in ascending order, with zeros between; one copy at
    most.
    """
    if len(pieces) == 1 and pieces[0][1].shape[0] == like_THK.shape[0]:
        return pieces[0][1]
    parts, end = [], 0
    for start, part in [*pieces, (like_THK.shape[0], like_THK[:0])]:
        if start > end:
            parts.append(like_THK.new_zeros(start - end, *like_THK.shape[1:]))
        parts.append(part)
        end = start + part.shape[0]
    return torch.cat(parts)


def _grouped(x_NHK: Tensor, g: Groups) -> Tensor:
    """[G * L, H, K] rows of a segment -> a view [G, L, H, K]."""
    if g.member_stride == 1:
        return x_NHK.unflatten(0, (g.count, g.length))
    return x_NHK.unflatten(0, (g.length, g.count)).transpose(0, 1)


def _sdpa(q_GLHK: Tensor, k_GLHK: Tensor, v_GLHK: Tensor) -> Tensor:
    if prefers_heads(q_GLHK, k_GLHK):
        return attend_by_heads(q_GLHK, k_GLHK, v_GLHK)
    q_GHLK, k_GHLK, v_GHLK = (x.transpose(1, 2) for x in (q_GLHK, k_GLHK, v_GLHK))
    return scaled_dot_product_attention(q_GHLK, k_GHLK, v_GHLK).transpose(1, 2)


def _runs(rows: Rows, keys: Rows) -> Iterator[tuple[int, int]]:
    """(first, count) of neighbouring segments with equal numbers of rows and keys."""
    first, sizes = (
        0,
        [(q.length, k.length) for q, k in zip(rows.segments, keys.segments, strict=True)],
    )
    for i in range(1, len(sizes) + 1):
        if i == len(sizes) or sizes[i] != sizes[first]:
            yield first, i - first
            first = i
