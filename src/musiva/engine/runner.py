"""The runner owns the loop over a denoiser's segments; the plain run calls straight through.

T rows, M modulation rows, D width, C channels of a token.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from musiva.core.pack import Pack, Rows
from musiva.core.run import QKV, Over, Run, Streams
from musiva.models.base import Denoiser, Inputs
from musiva.ops.attention import attend
from musiva.ops.linear import Linears

__all__ = ["PlainRun", "forward"]

X = TypeVar("X", Tensor, Streams)
V = TypeVar("V")
# Packs that take turns when not all samples fit into one; each keeps its shared values for that
# long.
REMEMBERED_KEYS = 4


def forward(model: Denoiser, inputs: Inputs, pack: Pack, run: Run) -> Tensor:
    """One evaluation of the model on a pack: the prediction, [T, out_channels * patch volume]."""
    streams = model.embed(inputs, pack, run)
    for _, segment in model.segments:
        streams = segment(streams, pack, run)
    return model.head(streams, pack, run)


class PlainRun:
    """Every row, every site, on one device. Without `linears`, layers run as they are: the run for
    training.
    """

    def __init__(self, linears: Linears | None = None) -> None:
        self._linears = linears or Linears("plain")
        self._shared: dict[str, OrderedDict[Hashable, object]] = {}

    def branch(self, site: str, fn: Callable[[X, Pack], X], x: X, pack: Pack) -> X:
        return fn(x, pack)

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        return attend(qkv, pack, over)

    def conv(
        self, site: str, layer: nn.Conv2d, x: Tensor, rows: Rows, to: Rows | None = None
    ) -> Tensor:
        rows.require_complete()
        laid_out = rows if to is None else to
        out_TC = x.new_zeros(laid_out.num_rows, layer.out_channels)
        for s, target in zip(rows.segments, laid_out.segments, strict=True):
            # One sample at a time, so that the kernel's choice never depends on the pack.
            x_FHWC = x[s.start : s.start + s.length].unflatten(0, s.grid)
            y_FCHW = layer(x_FHWC.permute(0, 3, 1, 2))
            span = slice(target.start, target.start + target.length)
            out_TC[span] = y_FCHW.permute(0, 2, 3, 1).flatten(0, 2)
        return out_TC

    def reduce(self, site: str, left: Tensor, right: Tensor, rows: Rows) -> Tensor:
        rows.require_complete()
        exact = torch.promote_types(left.dtype, torch.float32)
        parts = [slice(s.start, s.start + s.length) for s in rows.segments]
        return torch.stack(
            [torch.einsum("lgi,lgj->gij", left[at].to(exact), right[at].to(exact)) for at in parts]
        )

    def linear(
        self, site: str, layer: nn.Linear, x: Tensor, pack: Pack, activation: str | None = None
    ) -> Tensor:
        return self._linears(layer, x, activation)

    def once(self, site: str, fn: Callable[[], V], key: Hashable) -> V:
        if key is None or torch.is_grad_enabled():
            return fn()
        kept = self._shared.setdefault(site, OrderedDict())
        if key not in kept:
            kept[key] = fn()
            if len(kept) > REMEMBERED_KEYS:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]  # pyright: ignore[reportReturnType]
