"""The pack: rows of many samples, of any sizes, in one ragged batch without a batch axis.

Each stream (image, text, reference) lays its rows out one segment after another; segment i of every
stream belongs to the same sample branch. A segment is padded to a multiple of `ROW_ALIGN` rows and
the whole stream to a `bucket`, so that kernels see few distinct shapes and a row's result never
depends on who else is in the pack.

Shape letters: T rows of a stream with padding, M modulation rows, G groups, L rows of a group, D
width.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["ROW_ALIGN", "Groups", "Pack", "Rows", "Segment", "bucket", "patchify", "unpatchify"]

ROW_ALIGN = 16
Grid = tuple[int, int, int]


def bucket(rows: int) -> int:
    """Round rows up to a multiple of 16 that adds at most 1/32 to any count above 512."""
    granule = max(ROW_ALIGN, 1 << max(rows.bit_length() - 6, 0))
    return -(-rows // granule) * granule


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one sample branch in one stream: `length` real rows from `start`, then padding.

    grid: tokens as (frames, height, width), in row-major order; text is (1, 1, length).
    key: names the content of rows that do not change over steps (a prompt); None for rows that do.
    """

    start: int
    length: int
    grid: Grid
    key: Hashable = None

    @property
    def pitch(self) -> int:
        """Rows that the segment occupies, padding included."""
        return -(-self.length // ROW_ALIGN) * ROW_ALIGN


@dataclass(frozen=True, slots=True)
class Groups:
    """`count` groups of `length` rows that attend among themselves, inside segment `segment`.

    Group g, member l is row `start + g * group_stride + l * member_stride`; windows, which are not
    such a grid, carry their rows as index_GL instead.
    """

    segment: int
    start: int
    count: int
    length: int
    group_stride: int
    member_stride: int
    index_GL: Tensor | None = None


class Rows:
    """The row layout of one stream; immutable, and built once per plan.

    `complete` is False after `take`: some rows of the grid are absent, and whatever mixes tokens
    has to get them from pages.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        num_rows: int,
        *,
        device: torch.device | str = "cpu",
        taken_T: Tensor | None = None,
    ) -> None:
        self.segments = tuple(segments)
        self.num_rows = num_rows
        self.device = torch.device(device)
        self.complete = taken_T is None
        self._taken_T = taken_T

    @classmethod
    def build(
        cls,
        grids: Sequence[Grid],
        keys: Sequence[Hashable] | None = None,
        device: torch.device | str = "cpu",
    ) -> Rows:
        """Lay out one segment per grid, in order, each padded to `ROW_ALIGN` and the total to a
        bucket.
        """
        segments, start = [], 0
        for i, grid in enumerate(grids):
            length = grid[0] * grid[1] * grid[2]
            segments.append(Segment(start, length, grid, None if keys is None else keys[i]))
            start += segments[-1].pitch
        return cls(segments, bucket(start), device=device)

    @cached_property
    def keys(self) -> tuple[Hashable, ...]:
        """The layout and content of this stream, to key values that are shared over steps."""
        return tuple((s.start, s.grid, s.key) for s in self.segments)

    @cached_property
    def segment_T(self) -> Tensor:
        """[T] int64: the segment of each row; padding behind the last segment counts as the last
        one's.
        """
        if self._taken_T is not None:
            return self._taken_T[0]
        owner_T = torch.full((self.num_rows,), max(len(self.segments) - 1, 0), dtype=torch.int64)
        for i, s in enumerate(self.segments):
            owner_T[s.start : s.start + s.pitch] = i
        return owner_T.to(self.device)

    @cached_property
    def token_T(self) -> Tensor:
        """[T] int64: the canonical index of each row inside its segment; -1 for padding."""
        if self._taken_T is not None:
            return self._taken_T[1]
        token_T = torch.full((self.num_rows,), -1, dtype=torch.int64)
        for s in self.segments:
            token_T[s.start : s.start + s.length] = torch.arange(s.length)
        return token_T.to(self.device)

    @cached_property
    def uniform_pitch(self) -> int | None:
        """The one pitch of all segments if they fill the stream exactly, else None."""
        pitches = {s.pitch for s in self.segments}
        if not self.complete or len(pitches) != 1:
            return None
        (pitch,) = pitches
        return pitch if pitch * len(self.segments) == self.num_rows else None

    def take(self, rows: Tensor) -> Rows:
        """The layout of `x_TD[rows]`. rows: [T'] int64, ascending, and no padding among them."""
        owner_T, token_T = self.segment_T[rows], self.token_T[rows]
        counts = torch.bincount(owner_T, minlength=len(self.segments)).tolist()
        segments, start = [], 0
        for s, count in zip(self.segments, counts, strict=True):
            segments.append(replace(s, start=start, length=count))
            start += count
        return Rows(segments, start, device=self.device, taken_T=torch.stack([owner_T, token_T]))

    def to_rows(self, table_MD: Tensor) -> Tensor:
        """Look up one table row per row: [M, D] -> [T, D]."""
        return table_MD[self.segment_T]

    def groups(self, over: str | tuple[int, int]) -> tuple[Groups, ...]:
        """The rows that mix under `over`: "sample", "frame", "column" (same place, all frames) or a
        (height, width) window of tokens; windows at the far edges are smaller.
        """
        if not self.complete:
            raise RuntimeError(
                "rows were taken from this pack: token mixing needs the absent rows' pages"
            )
        if over not in self._groups:
            self._groups[over] = tuple(self._build_groups(over))
        return self._groups[over]

    @cached_property
    def _groups(self) -> dict[str | tuple[int, int], tuple[Groups, ...]]:
        return {}

    def _build_groups(self, over: str | tuple[int, int]) -> list[Groups]:
        groups = []
        for i, s in enumerate(self.segments):
            frames, height, width = s.grid
            place = height * width
            if over == "sample":
                groups.append(Groups(i, s.start, 1, s.length, s.pitch, 1))
            elif over == "frame":
                groups.append(Groups(i, s.start, frames, place, place, 1))
            elif over == "column":
                groups.append(Groups(i, s.start, place, frames, 1, place))
            elif isinstance(over, tuple):
                groups.extend(self._windows(i, s, over))
            else:
                raise ValueError(f"over: {over!r} names no row grouping")
        return groups

    def neighbours(self, width: int) -> Tensor:
        """[T, (2 * width + 1)**2] int64: the rows around each row, in row-major order; `num_rows`
        where there is none, outside of the picture and for padding.
        """
        if not self.complete:
            raise RuntimeError(
                "rows were taken from this pack: neighbours need the absent rows' pages"
            )
        if width not in self._neighbours:
            side = 2 * width + 1
            index_TN = torch.full((self.num_rows, side * side), self.num_rows, dtype=torch.int64)
            for s in self.segments:
                row_FHW = s.start + torch.arange(s.length).view(s.grid)
                padded = torch.nn.functional.pad(row_FHW, (width,) * 4, value=self.num_rows)
                around = padded.unfold(1, side, 1).unfold(2, side, 1)
                index_TN[s.start : s.start + s.length] = around.reshape(s.length, side * side)
            self._neighbours[width] = index_TN.to(self.device)
        return self._neighbours[width]

    @cached_property
    def _neighbours(self) -> dict[int, Tensor]:
        return {}

    def _windows(self, i: int, s: Segment, window: tuple[int, int]) -> list[Groups]:
        frames, height, width = s.grid
        index_FHW = s.start + torch.arange(s.length).view(frames, height, width)
        by_length: dict[int, list[Tensor]] = {}
        for top in range(0, height, window[0]):
            for left in range(0, width, window[1]):
                block = index_FHW[:, top : top + window[0], left : left + window[1]].flatten(1)
                by_length.setdefault(block.shape[1], []).append(block)
        return [
            Groups(i, 0, index_GL.shape[0], length, 0, 0, index_GL.to(self.device))
            for length, blocks in by_length.items()
            for index_GL in [torch.cat(blocks)]
        ]


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
    ) -> Pack:
        """grids: image tokens of each branch as (frames, height, width). text_lengths: its text
        rows.
        """
        streams = {"image": Rows.build(grids, device=device)}
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

    def take(self, rows: Tensor, stream: str = "image") -> Pack:
        """The pack in which `stream` keeps only `rows` ([T'] int64, ascending, no padding)."""
        return Pack({**self.streams, stream: self.streams[stream].take(rows)})

    def level(self, k: int) -> Pack:
        """The same samples on a grid coarsened k times by 2 in height and width (U-Nets); k = 0 is
        this.
        """
        if k == 0:
            return self
        if k not in self._levels:
            grids = [
                (f, -(-h >> k), -(-w >> k)) for f, h, w in (s.grid for s in self.image.segments)
            ]
            self._levels[k] = Pack(
                {**self.streams, "image": Rows.build(grids, device=self.image.device)}
            )
        return self._levels[k]

    @cached_property
    def _levels(self) -> dict[int, Pack]:
        return {}

    def rows_between(self, fine: int, coarse: int) -> tuple[Tensor, Tensor]:
        """Row maps between two levels: (corner [Tc]: the fine row at the top left of each coarse
        row; parent [Tf]: the coarse row that covers each fine row). Padding maps to row 0.
        """
        below, above, by = self.level(fine).image, self.level(coarse).image, coarse - fine
        corner_T = torch.zeros(above.num_rows, dtype=torch.int64)
        parent_T = torch.zeros(below.num_rows, dtype=torch.int64)
        for b, a in zip(below.segments, above.segments, strict=True):
            row_FHW = b.start + torch.arange(b.length).view(b.grid)
            corner_T[a.start : a.start + a.length] = row_FHW[:, :: 1 << by, :: 1 << by].flatten()
            over_FHW = (a.start + torch.arange(a.length).view(a.grid)).repeat_interleave(1 << by, 1)
            over_FHW = over_FHW.repeat_interleave(1 << by, 2)[:, : b.grid[1], : b.grid[2]]
            parent_T[b.start : b.start + b.length] = over_FHW.flatten()
        return corner_T.to(below.device), parent_T.to(below.device)

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
