"""The run for training: attention as explicit matrix products, which autograd takes back fastest on
a CPU.

PyTorch's fused attention is 2 to 5 times slower than this in bfloat16 at 64 to 256 tokens, forward
and backward together, and needs one call per pair of lengths; here equal pitches share a call and
padding keys are masked.

Shape suffixes: T rows, N segments, L query rows of a segment, M key rows, H heads, K channels of a
head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from musiva.core.pack import Pack, Rows
from musiva.core.run import QKV, Over, Streams
from musiva.engine.runner import PlainRun

__all__ = ["TrainRun"]


class TrainRun(PlainRun):
    """Plain but for attention from one stream to one stream inside each sample."""

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        queried = [(name, q) for name, (q, _, _) in qkv.items() if q is not None]
        keyed = [(name, k, v) for name, (_, k, v) in qkv.items() if k is not None and v is not None]
        if over != "sample" or len(queried) != 1 or len(keyed) != 1:
            return super().attend(site, qkv, pack, over)
        (query_name, q_THK), (key_name, k_THK, v_THK) = queried[0], keyed[0]
        rows, keys = pack.streams[query_name], pack.streams[key_name]
        parts, end = [], 0
        for first, count in _equal_pitches(rows, keys):
            start, pitch = rows.segments[first].start, rows.segments[first].pitch
            end = start + count * pitch
            q_NHLK = q_THK[start:end].unflatten(0, (count, pitch)).transpose(1, 2)
            start, pitch = keys.segments[first].start, keys.segments[first].pitch
            k_NHMK, v_NHMK = (
                x_THK[start : start + count * pitch].unflatten(0, (count, pitch)).transpose(1, 2)
                for x_THK in (k_THK, v_THK)
            )
            lengths = [segment.length for segment in keys.segments[first : first + count]]
            out_NHLK = _attention(q_NHLK, k_NHMK, v_NHMK, lengths)
            parts.append(out_NHLK.transpose(1, 2).flatten(0, 1))
        parts.append(q_THK.new_zeros(rows.num_rows - end, *q_THK.shape[1:]))
        return {query_name: torch.cat(parts)}


def _attention(q_NHLK: Tensor, k_NHMK: Tensor, v_NHMK: Tensor, lengths: list[int]) -> Tensor:
    score_NHLM = (q_NHLK * q_NHLK.shape[-1] ** -0.5) @ k_NHMK.transpose(-1, -2)
    if min(lengths) < k_NHMK.shape[2]:
        absent_NM = torch.arange(k_NHMK.shape[2]) >= torch.tensor(lengths)[:, None]
        score_NHLM = score_NHLM.masked_fill(
            absent_NM.to(q_NHLK.device)[:, None, None], float("-inf")
        )
    return score_NHLM.softmax(-1, dtype=score_NHLM.dtype) @ v_NHMK


def _equal_pitches(rows: Rows, keys: Rows) -> Iterator[tuple[int, int]]:
    """(first, count) of neighbouring segments with equal pitches in both streams."""
    pitches = [(q.pitch, k.pitch) for q, k in zip(rows.segments, keys.segments, strict=True)]
    first = 0
    for i in range(1, len(pitches) + 1):
        if i == len(pitches) or pitches[i] != pitches[first]:
            yield first, i - first
            first = i
