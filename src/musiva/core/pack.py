"""The pack: rows of many samples, of any sizes, in one ragged batch without a batch axis.

Each stream (image, text, reference) lays its rows out one segment after another; segment i of every
stream belongs to the same sample branch. A segment is padded to a multiple of `ROW_ALIGN` rows and
the whole stream to a `bucket`, so that kernels see few distinct shapes and a row's result never
depends on who else is in the pack.

Shape letters: T rows of a stream with padding, M modulation rows, G groups, L rows of a group, D
width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

__all__ = [
    "ROW_ALIGN",
    "Grid",
    "Groups",
    "Pack",
    "Rows",
    "Segment",
    "bucket",
    "patchify",
    "unpatchify",
]

ROW_ALIGN = 16
Grid = tuple[int, int, int]


def bucket(rows: int) -> int:
    """Round rows up to a multiple of 16 that adds at most 1/32 to any count above 512."""
    granule = max(ROW_ALIGN, 1 << max(rows.bit_length() - 6, 0))
    return -(-rows // granule) * granule


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one sample branch in one stream: `length` real rows from `start`, then padding.

    grid: all tokens as (frames, height, width), in row-major order, also where only some of them
    were taken; text is (1, 1, length).
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
class Taken:
    """What a layout was taken from, and its tokens of each segment; None: all of them."""

    full: Rows
    tokens: tuple[Tensor | None, ...]


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

    A layout is `complete`, or it was taken from one: `full` is then the complete layout, and
    whatever mixes tokens has to get the absent rows from pages. Segments are padded alike in both.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        *,
        device: torch.device | str = "cpu",
        taken: Taken | None = None,
    ) -> None:
        self.segments = tuple(segments)
        self.num_rows = bucket(sum(s.pitch for s in self.segments))
        self.device = torch.device(device)
        self._taken = taken

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
        return cls(segments, device=device)

    @property
    def complete(self) -> bool:
        return self._taken is None

    @property
    def full(self) -> Rows:
        """The complete layout that this one was taken from; itself if it is complete."""
        return self if self._taken is None else self._taken.full

    @cached_property
    def layout(self) -> Hashable:
        """Which token of what every row is, to key values that are shared over steps."""
        segments = tuple((s.start, s.length, s.grid) for s in self.segments)
        if self._taken is None:
            return segments
        return segments, tuple(None if t is None else tuple(t.tolist()) for t in self._taken.tokens)

    @cached_property
    def content(self) -> Hashable:
        """`layout` and what the rows hold, to key values made from them; None where a segment does
        not say.
        """
        keys = tuple(s.key for s in self.segments)
        return None if None in keys else (self.layout, keys)

    @cached_property
    def segment_T(self) -> Tensor:
        """[T] int64: the segment of each row; padding behind the last segment counts as the last
        one's.
        """
        owner_T = torch.full((self.num_rows,), max(len(self.segments) - 1, 0), dtype=torch.int64)
        for i, s in enumerate(self.segments):
            owner_T[s.start : s.start + s.pitch] = i
        return owner_T.to(self.device)

    @cached_property
    def token_T(self) -> Tensor:
        """[T] int64: the canonical index of each row inside its segment; -1 for padding."""
        token_T = torch.full((self.num_rows,), -1, dtype=torch.int64)
        for i, s in enumerate(self.segments):
            tokens_L = None if self._taken is None else self._taken.tokens[i]
            token_T[s.start : s.start + s.length] = (
                torch.arange(s.length) if tokens_L is None else tokens_L
            )
        return token_T.to(self.device)

    @cached_property
    def source_T(self) -> Tensor:
        """[T] int64: for each row that of `full` with the same token; padding names some row."""
        starts = torch.tensor([s.start for s in self.full.segments], device=self.device)
        return starts[self.segment_T] + self.token_T.clamp(min=0)

    @cached_property
    def uniform_pitch(self) -> int | None:
        """The one pitch of all segments if they fill the stream exactly, else None."""
        pitches = {s.pitch for s in self.segments}
        if len(pitches) != 1:
            return None
        (pitch,) = pitches
        return pitch if pitch * len(self.segments) == self.num_rows else None

    def take(self, tokens: Sequence[Tensor | None]) -> Rows:
        """The layout with only these tokens of each segment, which are those of this layout: [L]
        int64, ascending, on the host; None takes all. `x_TD[rows.source_T]` takes the rows of a
        complete layout.
        """
        if self._taken is not None:
            tokens = [
                there if chosen is None else chosen
                for chosen, there in zip(tokens, self._taken.tokens, strict=True)
            ]
        segments, start = [], 0
        for s, chosen in zip(self.full.segments, tokens, strict=True):
            length = s.length if chosen is None else len(chosen)
            segments.append(replace(s, start=start, length=length))
            start += segments[-1].pitch
        return Rows(segments, device=self.device, taken=Taken(self.full, tuple(tokens)))

    def lookup(self, make: Callable[[Grid], Tensor]) -> Tensor:
        """Row constants such as positions: `make(grid)` gives [L, ...] for all tokens of a grid, of
        which each row gets its own; zero for padding. [T, ...].
        """
        tables = {grid: make(grid) for grid in {s.grid for s in self.segments}}
        like = next(iter(tables.values()))
        out_TD = like.new_zeros(self.num_rows, *like.shape[1:])
        for i, s in enumerate(self.segments):
            tokens_L = None if self._taken is None else self._taken.tokens[i]
            table_LD = tables[s.grid]
            out_TD[s.start : s.start + s.length] = (
                table_LD if tokens_L is None else table_LD[tokens_L.to(table_LD.device)]
            )
        return out_TD

    def to_rows(self, table_MD: Tensor) -> Tensor:
        """Look up one table row per row: [M, D] -> [T, D]."""
        return table_MD[self.segment_T]

    def require_complete(self) -> None:
        """Raises RuntimeError for a layout that was taken from another one."""
        if not self.complete:
            raise RuntimeError(
                "rows were taken from this pack: what mixes tokens needs the absent rows' pages"
            )

    def groups(self, over: str | tuple[int, int]) -> tuple[Groups, ...]:
        """The rows that mix under `over`: "sample", "frame", "column" (same place, all frames) or a
        (height, width) window of tokens; windows at the far edges are smaller.
        """
        self.require_complete()
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

    def take(self, tokens: Mapping[str, Sequence[Tensor | None]]) -> Pack:
        """The pack with only these tokens of the named streams; see `Rows.take`."""
        taken = {name: self.streams[name].take(chosen) for name, chosen in tokens.items()}
        return Pack({**self.streams, **taken})

    def level(self, k: int) -> Pack:
        """The same samples on a grid coarsened k times by 2 in height and width (U-Nets); k = 0 is
        this.
        """
        if k == 0:
            return self
        self.image.require_complete()
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

    def parents(self, fine: int, coarse: int) -> Tensor:
        """[T] int64: the row of level `coarse` over each row of level `fine`; 0 for padding."""
        below, above, by = self.level(fine).image, self.level(coarse).image, coarse - fine
        parent_T = torch.zeros(below.num_rows, dtype=torch.int64)
        for b, a in zip(below.segments, above.segments, strict=True):
            over_FHW = (a.start + torch.arange(a.length).view(a.grid)).repeat_interleave(1 << by, 1)
            over_FHW = over_FHW.repeat_interleave(1 << by, 2)[:, : b.grid[1], : b.grid[2]]
            parent_T[b.start : b.start + b.length] = over_FHW.flatten()
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
