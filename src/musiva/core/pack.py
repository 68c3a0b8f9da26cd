"""The pack: rows of many samples, of any sizes, in one ragged batch without a batch axis.

Each stream (image, text, reference) is laid out as its `Rows` say; segment i of every stream
belongs to the same sample branch.

Shape letters: T rows of a stream with padding, M modulation rows, L rows of a segment, C channels,
D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from musiva.core.rows import (
    ROW_ALIGN,
    Grid,
    Groups,
    Rows,
    Segment,
    bucket,
    coarser,
    parents,
)

__all__ = [
    "ROW_ALIGN",
    "Grid",
    "Groups",
    "Pack",
    "Rows",
    "Segment",
    "bucket",
    "coarser",
    "patchify",
    "unpatchify",
]


V = TypeVar("V")


class Pack:
    """Row layouts by stream; segment i of every stream is the same sample branch.

    Modulation tables have one row per sample branch, padded to `num_mod_rows`; `pack.mod_row` looks
    them up for the image rows.
    """

    def __init__(self, streams: Mapping[str, Rows]) -> None:
        counts = {len(rows.segments) for rows in streams.values()}
        if len(counts) != 1:
            raise ValueError("every stream of a pack has one segment per sample branch")
        self.streams = dict(streams)
        (self.num_branches,) = counts

    @classmethod
    def build(
        cls,
        grids: Sequence[Grid],
        text_lengths: Sequence[int] | None = None,
        text_keys: Sequence[Hashable] | None = None,
        device: torch.device | str = "cpu",
        owners: Sequence[Hashable] | None = None,
    ) -> Pack:
        """grids: image tokens of each branch as (frames, height, width). text_lengths: its text
        rows. owners: of its image rows; text rows are always all there, and no one keeps them.
        """
        streams = {"image": Rows.build(grids, device=device, owners=owners)}
        if text_lengths is not None:
            streams["text"] = Rows.build([(1, 1, n) for n in text_lengths], text_keys, device)
        return cls(streams)

    @property
    def image(self) -> Rows:
        return self.streams["image"]

    @property
    def num_mod_rows(self) -> int:
        """Rows of a modulation table; padded, so that its linears are as exact as all others."""
        return -(-self.num_branches // ROW_ALIGN) * ROW_ALIGN

    @property
    def mod_row(self) -> Tensor:
        """[T] int64: the modulation row of each image row."""
        return self.image.segment_T

    def take(self, tokens: Mapping[str, Sequence[Tensor | None]]) -> Pack:
        """The pack with only these tokens of the named streams; see `Rows.take`."""
        taken = {name: self.streams[name].take(chosen) for name, chosen in tokens.items()}
        return Pack({**self.streams, **taken})

    def only(self, wanted: Sequence[bool]) -> Pack:
        """The pack with only the wanted branches, where they stand; see `Rows.only`."""
        key = tuple(wanted)
        if key not in self._parts:
            parts = {name: rows.only(wanted) for name, rows in self.streams.items()}
            self._parts[key] = Pack(parts)
        return self._parts[key]

    @cached_property
    def _parts(self) -> dict[tuple[bool, ...], Pack]:
        return {}

    def level(self, k: int) -> Pack:
        """The same samples on a grid coarsened k times by 2 in height and width (U-Nets); k = 0 is
        this. See `Rows.level`.
        """
        if k == 0:
            return self
        if k not in self._levels:
            self._levels[k] = Pack({**self.streams, "image": self.image.level(k)})
        return self._levels[k]

    @cached_property
    def _levels(self) -> dict[int, Pack]:
        return {}

    def derived(self, key: Hashable, make: Callable[[], V]) -> V:
        """make(), or what it returned before for the same key and this very pack: what a model
        works out of the layout and would work out again in each of its segments.
        """
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]  # pyright: ignore[reportReturnType]

    @cached_property
    def _derived(self) -> dict[Hashable, object]:
        return {}

    def parents(self, fine: int, coarse: int) -> Tensor:
        """[T] int64: the row of level `coarse` over each row of level `fine`; 0 for padding."""
        below, above = self.level(fine).image, self.level(coarse).image
        parent_T = torch.zeros(below.num_rows, dtype=torch.int64)
        for i, (b, a) in enumerate(zip(below.segments, above.segments, strict=True)):
            tokens_L, above_L = below.tokens[i], above.tokens[i]
            parent_L = parents(b.grid, coarse - fine)
            if tokens_L is not None:
                parent_L = parent_L[tokens_L]
            if above_L is not None:
                parent_L = torch.searchsorted(above_L, parent_L)
            parent_T[b.start : b.start + b.length] = a.start + parent_L
        return parent_T.to(below.device)

    def gather(self, tensors: Sequence[Tensor], stream: str = "image") -> Tensor:
        """Lay one [L, D] tensor per branch out as [T, D]; padding rows are zero."""
        rows = self.streams[stream]
        first = tensors[0]
        out_TD = first.new_zeros(rows.num_rows, *first.shape[1:])
        for s, tensor in zip(rows.segments, tensors, strict=True):
            out_TD[s.start : s.start + s.length] = tensor
        return out_TD

    def split(self, x_TD: Tensor, stream: str = "image") -> list[Tensor]:
        """The inverse of gather: views of the real rows of each branch."""
        return [x_TD[s.start : s.start + s.length] for s in self.streams[stream].segments]


def patchify(latent: Tensor, patch: Grid) -> tuple[Tensor, Grid]:
    """[C, H, W] or [C, F, H, W] -> tokens [L, C * pf * ph * pw] and their grid. Rows and columns
    that do not fill a patch are dropped, as a strided convolution drops them.
    """
    x = latent if latent.ndim == 4 else latent.unsqueeze(1)
    grid = tuple(n // p for n, p in zip(x.shape[1:], patch, strict=True))
    (f, h, w), (pf, ph, pw) = grid, patch
    x = x[:, : f * pf, : h * ph, : w * pw].reshape(x.shape[0], f, pf, h, ph, w, pw)
    return x.permute(1, 3, 5, 0, 2, 4, 6).flatten(3).flatten(0, 2), (f, h, w)


def unpatchify(tokens_LC: Tensor, grid: Grid, patch: Grid, ndim: int = 3) -> Tensor:
    """The inverse of patchify; `ndim` 3 gives [C, H, W], 4 gives [C, F, H, W]."""
    (f, h, w), (pf, ph, pw) = grid, patch
    x = tokens_LC.reshape(f, h, w, -1, pf, ph, pw).permute(3, 0, 4, 1, 5, 2, 6)
    x = x.reshape(-1, f * pf, h * ph, w * pw)
    return x if ndim == 4 else x.squeeze(1)
