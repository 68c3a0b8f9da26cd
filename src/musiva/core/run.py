"""The seam between a denoiser and whoever runs it.

A denoiser (`musiva.models.base.Denoiser`) is `embed`, `segments` and `head`; token-wise code inside
them is free, and whatever mixes tokens, or is worth replacing, goes through a `Run`. The plain run
calls straight through; policies, parallel forms and reduced precision are other runs over the same
model code.

Contract for implementers: every method returns what the plain run would, to the accuracy that the
run promises, and never changes its arguments. Where rows were taken from a pack, `attend`, `conv`,
`reduce` and `whole` need the absent rows' features too; a run that keeps none raises RuntimeError.
Contract for models: `site` is unique in the model and constant.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol, TypeVar

from torch import Tensor, nn

from musiva.core.pack import Pack, Rows

__all__ = ["QKV", "Over", "Run", "Streams"]

Streams = dict[str, Tensor]
QKV = tuple[Tensor | None, Tensor | None, Tensor | None]
Over = str | tuple[int, int]
X = TypeVar("X", Tensor, Streams)
V = TypeVar("V")


class Run(Protocol):
    def branch(self, site: str, fn: Callable[[X, Pack], X], x: X, pack: Pack) -> X:
        """The value of a residual branch, which the caller adds. fn may be called on the rows of a
        part of the pack, or not at all, so it must be a function of its arguments alone: row
        constants (positions) are looked up by the pack in hand, `Rows.lookup`. x is [T,
        D] of the image stream, or all streams that the branch writes. Branches nest.
        """
        ...

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        """Softmax attention in groups of rows. qkv: for each stream (q, k, v), each [T, H, K] or
        None; a stream with q None only is attended to, one with k and v None only attends. Keys of
        a group are the rows of all its streams, in the order of qkv and in canonical token order.
        Returns [T, H, K] for each stream with queries; padding rows are unspecified but finite.
        """
        ...

    def conv(
        self, site: str, layer: nn.Conv2d, x: Tensor, rows: Rows, to: Rows | None = None
    ) -> Tensor:
        """layer over every frame of each sample branch, with its own padding at the edges: [T, C]
        -> [T', C'], laid out as `rows`, or as `to`, the coarser level of a layer with a stride.
        """
        ...

    def reduce(self, site: str, left: Tensor, right: Tensor, rows: Rows) -> Tensor:
        """Sums over all tokens of each of the B sample branches, in float32 at least, of products
        of rows: [T, G, I] and [T, G, J] -> [B, G, I, J]. Linear attention sums keys times values,
        group norm its statistics times ones.
        """
        ...

    def whole(self, site: str, x: Tensor, rows: Rows) -> Sequence[Tensor]:
        """[L, ...] for each segment: x of all of its tokens, in canonical order, for what mixes
        them in a way of its own.
        """
        ...

    def linear(
        self, site: str, layer: nn.Linear, x: Tensor, pack: Pack, activation: str | None = None
    ) -> Tensor:
        """layer(x), then `activation`: None, "gelu_tanh", "gelu", "silu" or "relu"."""
        ...

    def once(self, site: str, fn: Callable[[], V], key: Hashable) -> V:
        """fn(), or what it returned before for the same site and key. fn depends on weights and key
        only. A key of None says that nothing is known of what fn depends on: it is not shared.
        """
        ...
