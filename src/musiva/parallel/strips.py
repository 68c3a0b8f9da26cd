"""A picture in strips, one on each rank: an autoencoder decodes it by its own code.

What looks beyond a row asks other ranks: a convolution for the rows beside its strip, a norm of
groups for the moments of all strips, an attention for the keys and values of all. Everything else
is done strip by strip as it is, so that no class is written anew. Exact but for the order of sums.
Whether nothing else of a class looks beyond a row is for the caller to try.

H rows of a strip, W columns, C channels, B pictures, G groups, L positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from musiva.comm.group import Group, Shape
from musiva.parallel.shards import bounds

__all__ = ["Strips", "Unshared"]

# On a tensor whose strip has rows of its neighbours: by how many it is longer on each side.
BESIDE = "musiva_rows_beside"


class Unshared(Exception):
    """What is done to a strip takes rows in a way that is not known here."""


class Strips(TorchFunctionMode):
    """While it is entered, tensors [..., H, W] are this rank's strips. rows: of the latent."""

    def __init__(self, group: Group, rows: int) -> None:
        super().__init__()
        self._group = group
        self._ends = bounds(rows, group.size)
        self._counts = [b - a for a, b in pairwise(self._ends)]

    def own(self, x: Tensor) -> Tensor:
        """The strip of this rank."""
        first, end = self._ends[self._group.rank : self._group.rank + 2]
        return x[..., first:end, :]

    def whole(self, x: Tensor) -> Tensor:
        """All strips, below each other, on every rank: their rows, or positions in their order."""
        scale = self._scale(x.shape[-2])
        shapes = [(*x.shape[:-2], n * scale, x.shape[-1]) for n in self._counts]
        return torch.cat(self._group.exchange([x] * self._group.size, shapes), -2)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        asking = ASKING.get(func)
        if asking is None:
            return func(*args, **(kwargs or {}))
        return asking(self, *args, **(kwargs or {}))

    def conv2d(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._conv(torch.conv2d, *args, **kwargs)

    def conv3d(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._conv(torch.conv3d, *args, **kwargs)

    def _conv(
        self,
        func: Callable[..., Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        if isinstance(padding, str):
            raise Unshared(f"a convolution with padding {padding!r}")
        rank = weight.ndim - 2
        strides, paddings, dilations = (
            [one] * rank if isinstance(one, int) else list(one)
            for one in (stride, padding, dilation)
        )
        # Below and above, all that a row depends on.
        reach = dilations[-2] * (weight.shape[-2] - 1)
        beside = getattr(x, BESIDE, 0)
        if reach and (strides[-2] != 1 or 2 * (paddings[-2] + beside) != reach):
            raise Unshared(f"a convolution over {weight.shape[-2]} rows by {strides[-2]}")
        if not reach and (strides[-2] != 1 or paddings[-2] or beside):
            raise Unshared(f"a convolution of rows by {strides[-2]}")
        x, paddings[-2] = self._with_beside(x, paddings[-2]), 0
        return func(x, weight, bias, strides, paddings, dilations, groups)

    def pad(
        self, x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
    ) -> Tensor:
        above, below = [*pad, 0, 0, 0, 0][2:4]
        if not (above or below):
            return F.pad(x, tuple(pad), mode, value)
        if mode != "constant" or value or above != below:
            raise Unshared(f"rows {above} and {below} of {mode}")
        padded = F.pad(self._with_beside(x, above), (*pad[:2], 0, 0, *pad[4:]))
        setattr(padded, BESIDE, above)
        return padded

    def group_norm(
        self,
        x: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        """Moments of strips are put together after Chan et al. (1979)."""
        places = tuple(range(2, x.ndim))
        # By channel first, so that nothing is laid otherwise.
        own_BC = torch.var_mean(x.float(), places, correction=0)
        var_BGC, mean_BGC = (one.unflatten(1, (num_groups, -1)) for one in own_BC)
        mean_BG = mean_BGC.mean(2)
        var_BG = (var_BGC + (mean_BGC - mean_BG.unsqueeze(2)).square()).mean(2)
        own = torch.stack((mean_BG, var_BG))
        several = self._group.exchange([own] * self._group.size, [own.shape] * self._group.size)
        means_RBG, vars_RBG = torch.stack(several).unbind(1)
        share_R = torch.tensor(self._counts, device=x.device)[:, None, None] / sum(self._counts)
        mean_BG = (share_R * means_RBG).sum(0)
        var_BG = (share_R * (vars_RBG + (means_RBG - mean_BG).square())).sum(0)
        each = x.shape[1] // num_groups
        scale_BC = (var_BG + eps).rsqrt().repeat_interleave(each, 1)
        scale_BC = scale_BC if weight is None else scale_BC * weight
        shift_BC = -mean_BG.repeat_interleave(each, 1) * scale_BC
        shift_BC = shift_BC if bias is None else shift_BC + bias
        shape = (*scale_BC.shape, *[1] * len(places))
        return torch.addcmul(shift_BC.view(shape).to(x), x, scale_BC.view(shape).to(x))

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """To the positions [..., L, C] of all strips, in whatever order."""
        if attn_mask is not None or is_causal or dropout_p:
            raise Unshared("attention with a mask")
        k, v = self.whole(torch.cat((k, v), -1)).split((k.shape[-1], v.shape[-1]), -1)
        return F.scaled_dot_product_attention(q, k, v, **kwargs)

    def interpolate(
        self,
        x: Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Rows repeated are those of the strip."""
        if isinstance(size, Sequence):
            times = size[-2] / x.shape[-2]
        else:
            times = scale_factor[-2] if isinstance(scale_factor, Sequence) else scale_factor
        is_whole = isinstance(times, int | float) and times == int(times)
        if not is_whole or mode not in ("nearest", "nearest-exact"):
            raise Unshared(f"a resize to {size or scale_factor}, {mode}")
        return F.interpolate(x, size, scale_factor, mode, *args, **kwargs)

    def _scale(self, length: int) -> int:
        """Of what has so many positions of a strip, those of a row of the latent."""
        own = self._counts[self._group.rank]
        if length % own:
            raise Unshared(f"{length} positions of {own} rows")
        return length // own

    def _with_beside(self, x: Tensor, count: int) -> Tensor:
        """With so many rows of the strips above and below, zeros where there is none."""
        if not count:
            return x
        rank, size = self._group.rank, self._group.size
        # Every rank has to say the same.
        if count > min(self._counts) * self._scale(x.shape[-2]):
            raise Unshared(f"{count} rows beside strips of {min(self._counts)}")
        nothing = x.new_empty(0)
        parts = [nothing] * size
        shapes: list[Shape] = [(0,)] * size
        edge = x[..., :count, :]
        if rank:
            parts[rank - 1], shapes[rank - 1] = edge, edge.shape
        if rank + 1 < size:
            parts[rank + 1], shapes[rank + 1] = x[..., -count:, :], edge.shape
        received = self._group.exchange(parts, shapes)
        rows = x.shape[-2]
        longer = (*x.shape[:-2], rows + 2 * count, x.shape[-1])
        out = torch.empty(longer, dtype=x.dtype, device=x.device, memory_format=_order_of(x))
        out[..., count : count + rows, :] = x
        out[..., :count, :] = received[rank - 1] if rank else 0.0
        out[..., count + rows :, :] = received[rank + 1] if rank + 1 < size else 0.0
        return out


def _order_of(x: Tensor) -> torch.memory_format:
    """In which its numbers lie."""
    lasts = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = lasts.get(x.ndim)
    if last is not None and x.is_contiguous(memory_format=last) and not x.is_contiguous():
        return last
    return torch.contiguous_format


ASKING: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.conv2d: Strips.conv2d,
    torch.conv3d: Strips.conv3d,
    F.pad: Strips.pad,
    F.group_norm: Strips.group_norm,
    F.scaled_dot_product_attention: Strips.attention,
    F.interpolate: Strips.interpolate,
}
