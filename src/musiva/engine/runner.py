"""The runner owns the loop over a denoiser's segments; the plain run calls straight through.

T rows, L rows of a segment, B sample branches, D width, C channels of a token; G, I and J as in
`Run.reduce`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
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
# Of values that `once` shares. Packs take turns when not all samples fit into one; each wants its
# own kept for that long.
SHARED_BYTES = 1 << 30


def forward(model: Denoiser, inputs: Inputs, pack: Pack, run: Run) -> Tensor:
    """One evaluation of the model on a pack: the prediction, [T, out_channels * patch volume]."""
    streams = model.embed(inputs, pack, run)
    for _, segment in model.segments:
        streams = segment(streams, pack, run)
    return model.head(streams, pack, run)


class PlainRun:
    """Every row, every site, on one device. Without `linears`, layers run as they are: the run for
    training.

    shared_bytes: what `once` may keep, counted from tensors.
    """

    def __init__(self, linears: Linears | None = None, *, shared_bytes: int = SHARED_BYTES) -> None:
        self._linears = linears or Linears("plain")
        # The least recently used one comes first; each with its bytes.
        self._shared: OrderedDict[tuple[str, Hashable], tuple[object, int]] = OrderedDict()
        self._free_bytes = shared_bytes

    def branch(self, site: str, fn: Callable[[X, Pack], X], x: X, pack: Pack) -> X:
        return fn(x, pack)

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        return attend(qkv, pack, over)

    def conv(
        self, site: str, layer: nn.Conv2d, x: Tensor, rows: Rows, to: Rows | None = None
    ) -> Tensor:
        laid_out = rows if to is None else to
        out_TC = x.new_zeros(laid_out.num_rows, layer.out_channels)
        for i, x_LC in enumerate(self.whole(site, x, rows)):
            # One sample at a time, so that the kernel's choice never depends on the pack. What no
            # row asks for is computed too: a part of a picture would need its own edges cut off.
            y_FCHW = layer(x_LC.unflatten(0, rows.segments[i].grid).permute(0, 3, 1, 2))
            y_LC = y_FCHW.permute(0, 2, 3, 1).flatten(0, 2)
            target, tokens_L = laid_out.segments[i], laid_out.tokens[i]
            span = slice(target.start, target.start + target.length)
            out_TC[span] = y_LC if tokens_L is None else y_LC[tokens_L.to(y_LC.device)]
        return out_TC

    def reduce(self, site: str, left: Tensor, right: Tensor, rows: Rows) -> Tensor:
        exact = torch.promote_types(left.dtype, torch.float32)
        parts = zip(
            self.whole(f"{site}.left", left, rows),
            self.whole(f"{site}.right", right, rows),
            strict=True,
        )
        return torch.stack(
            [torch.einsum("lgi,lgj->gij", x.to(exact), y.to(exact)) for x, y in parts]
        )

    def whole(self, site: str, x: Tensor, rows: Rows) -> Sequence[Tensor]:
        """[L, ...] for each segment: the features of all of its tokens, in canonical order."""
        rows.require_complete()
        return [x[s.start : s.start + s.length] for s in rows.segments]

    def linear(
        self, site: str, layer: nn.Linear, x: Tensor, pack: Pack, activation: str | None = None
    ) -> Tensor:
        return self._linears(layer, x, activation)

    def once(self, site: str, fn: Callable[[], V], key: Hashable) -> V:
        if key is None or torch.is_grad_enabled():
            return fn()
        if (site, key) not in self._shared:
            value = fn()
            self._share((site, key), value)
            return value
        self._shared.move_to_end((site, key))
        return self._shared[site, key][0]  # pyright: ignore[reportReturnType]

    def _share(self, name: tuple[str, Hashable], value: object) -> None:
        """Keep a value, and let those go that were not used for the longest time."""
        num_bytes = _bytes_of(value)
        self._shared[name] = value, num_bytes
        self._free_bytes -= num_bytes
        while self._free_bytes < 0:
            _, (_, freed) = self._shared.popitem(last=False)
            self._free_bytes += freed


def _bytes_of(value: object) -> int:
    """Of the tensors of a value, which may stand in containers."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return sum(map(_bytes_of, value)) if isinstance(value, tuple | list) else 0
