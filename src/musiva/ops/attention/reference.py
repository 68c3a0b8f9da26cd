"""Attention over packs as the formula reads: a group at a time, explicit softmax, no views."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from musiva.core.pack import Groups, Pack
from musiva.core.run import QKV, Over, Streams

__all__ = ["attend_reference", "group_index"]


def group_index(groups: Groups) -> Tensor:
    """[G, L] int64: the rows of each group."""
    if groups.index_GL is not None:
        return groups.index_GL
    first_G1 = groups.start + groups.group_stride * torch.arange(groups.count)[:, None]
    return first_G1 + groups.member_stride * torch.arange(groups.length)[None, :]


def attend_reference(qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample") -> Streams:
    """See `Run.attend`; padding rows of the result are zero. Computed in the dtype of the
    inputs.
    """
    groups = {name: pack.streams[name].groups(over) for name in qkv}
    out = {name: torch.zeros_like(q) for name, (q, _, _) in qkv.items() if q is not None}
    for segment in range(pack.num_branches):
        rows = {
            name: [i for g in groups[name] if g.segment == segment for i in group_index(g)]
            for name in qkv
        }
        for g in range(max(len(r) for r in rows.values())):
            keys = [
                k[rows[n][g]] for n, (_, k, _) in qkv.items() if k is not None and g < len(rows[n])
            ]
            values = [
                v[rows[n][g]] for n, (_, _, v) in qkv.items() if v is not None and g < len(rows[n])
            ]
            k_LHK, v_LHK = torch.cat(keys), torch.cat(values)
            for name, (q, _, _) in qkv.items():
                if q is None or not k_LHK.shape[0]:
                    continue
                q_LHK = q[rows[name][g]] * q.shape[-1] ** -0.5
                weight_HLM = torch.einsum("lhk,mhk->hlm", q_LHK, k_LHK).softmax(-1)
                out[name][rows[name][g]] = torch.einsum("hlm,mhk->lhk", weight_HLM, v_LHK)
    return out
