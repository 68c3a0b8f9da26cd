"""The runner owns the loop over a denoiser's segments; the plain run calls straight through.

T rows, L rows of a segment, A of them that are asked for, B sample branches, D width, C channels of
a token, F frames, Y and X places in a patch, N numbers of one; G, I and J as in `Run.reduce`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from musiva.core.pack import Grid, Pack, Rows
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
            # One sample at a time, so that the kernel's choice never depends on the pack.
            target, tokens_A = laid_out.segments[i], laid_out.tokens[i]
            if target.length:
                y_AC = convolve(layer, x_LC, rows.segments[i].grid, tokens_A)
                out_TC[target.start : target.start + target.length] = y_AC
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


def convolve(layer: nn.Conv2d, x_LC: Tensor, grid: Grid, tokens_A: Tensor | None) -> Tensor:
    """[A, C]: the layer over every frame of a sample, all of its output tokens or only these."""
    x_FHWC = x_LC.unflatten(0, grid)
    if tokens_A is None or not _prefers_patches(layer, grid, len(tokens_A)):
        y_LC = layer(x_FHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(0, 2)
        return y_LC if tokens_A is None else y_LC[tokens_A.to(y_LC.device)]
    assert not isinstance(layer.padding, str)
    top, left = layer.padding
    # Views of overlapping patches: nothing is copied before the tokens are picked.
    patches_FHWCYX = nn.functional.pad(x_FHWC, (0, 0, left, left, top, top))
    spans = zip(layer.kernel_size, layer.dilation, layer.stride, strict=True)
    for axis, (size, dilation, stride) in enumerate(spans, 1):
        window = dilation * (size - 1) + 1
        patches_FHWCYX = patches_FHWCYX.unfold(axis, window, stride)[..., ::dilation]
    _, height, width = patches_FHWCYX.shape[:3]
    at_A = tokens_A.to(x_LC.device)
    place_A = at_A // (height * width), at_A // width % height, at_A % width
    patches_AN = patches_FHWCYX[place_A].flatten(1)
    return nn.functional.linear(patches_AN, layer.weight.flatten(1), layer.bias)


def _prefers_patches(layer: nn.Conv2d, grid: Grid, count: int) -> bool:
    """Whether a matrix product over the patches of so many output tokens is less work than the
    layer's own kernel over all of them. By measure it costs twice as much a token, and is no match
    for a kernel that keeps channels apart.
    """
    outputs = math.prod(grid) // math.prod(layer.stride)
    plain = layer.groups == 1 and layer.padding_mode == "zeros"
    return plain and not isinstance(layer.padding, str) and 2 * count < outputs


def _bytes_of(value: object) -> int:
    """Of the tensors of a value, which may stand in containers."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return sum(map(_bytes_of, value)) if isinstance(value, tuple | list) else 0
