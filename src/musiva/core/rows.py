"""Row layouts: which token of which sample branch every row of a stream is.

A stream lays its rows out one segment after another. A segment is padded to a multiple of
`ROW_ALIGN` rows and the whole stream to a `bucket`, so that kernels see few distinct shapes and a
row's result never depends on who else is in the pack.

Shape letters: T rows of a stream with padding, M modulation rows, G groups, L rows of a group or a
segment, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

__all__ = [
    "ROW_ALIGN",
    "Grid",
    "Groups",
    "Rows",
    "Segment",
    "bucket",
    "coarser",
    "parents",
]

V = TypeVar("V")
ROW_ALIGN = 16
Grid = tuple[int, int, int]


def bucket(rows: int) -> int:
    """Round rows up to a multiple of 16 that adds at most 1/32 to any count above 512."""
    granule = max(ROW_ALIGN, 1 << max(rows.bit_length() - 6, 0))
    return -(-rows // granule) * granule


def coarser(grid: Grid, k: int) -> Grid:
    """The grid halved k times in height and width, rounded up."""
    frames, height, width = grid
    return frames, -(-height >> k), -(-width >> k)


def parents(grid: Grid, k: int) -> Tensor:
    """[L] int64: for each token of a grid the one over it in the grid coarsened k times."""
    frames, height, width = coarser(grid, k)
    over_FHW = torch.arange(frames * height * width).view(frames, height, width)
    over_FHW = over_FHW.repeat_interleave(1 << k, 1).repeat_interleave(1 << k, 2)
    return over_FHW[:, : grid[1], : grid[2]].flatten()


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one sample branch in one stream: `length` real rows from `start`, then padding.

    grid: all tokens as (frames, height, width), in row-major order, also where only some of them
    were taken; text is (1, 1, length).
    key: names the content of rows that do not change over steps (a prompt); None for rows that do.
    owner: names the sample branch to those who keep features of its rows; None where no one does.
    """

    start: int
    length: int
    grid: Grid
    key: Hashable = None
    owner: Hashable = None

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

    halvings: how many times the grids of the samples were halved to get its own (`level`).
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        *,
        device: torch.device | str = "cpu",
        taken: Taken | None = None,
        halvings: int = 0,
        num_rows: int | None = None,
    ) -> None:
        """num_rows: where it is more than the segments say."""
        self.segments = tuple(segments)
        self.num_rows = num_rows or bucket(sum(s.pitch for s in self.segments))
        self.device = torch.device(device)
        self.halvings = halvings
        self._taken = taken

    @classmethod
    def build(
        cls,
        grids: Sequence[Grid],
        keys: Sequence[Hashable] | None = None,
        device: torch.device | str = "cpu",
        owners: Sequence[Hashable] | None = None,
    ) -> Rows:
        """Lay out one segment per grid, in order, each padded to `ROW_ALIGN` and the total to a
        bucket. Raises ValueError for an owner of two segments.
        """
        nobody = (None,) * len(grids)
        named = [owner for owner in owners or nobody if owner is not None]
        if len(set(named)) != len(named):
            raise ValueError(f"two segments of one owner: {named}")
        segments = [
            Segment(0, math.prod(grid), grid, key, owner)
            for grid, key, owner in zip(grids, keys or nobody, owners or nobody, strict=True)
        ]
        return cls(_laid_out(segments), device=device)

    @property
    def complete(self) -> bool:
        return self._taken is None

    @property
    def full(self) -> Rows:
        """The complete layout that this one was taken from; itself if it is complete."""
        return self if self._taken is None else self._taken.full

    @property
    def tokens(self) -> tuple[Tensor | None, ...]:
        """The tokens of each segment that are there, [L] int64 on the host, ascending; None: all
        of them.
        """
        return (None,) * len(self.segments) if self._taken is None else self._taken.tokens

    @cached_property
    def layout(self) -> Hashable:
        """Which token of what every row is, to key values that are shared over steps."""
        segments = tuple((s.start, s.length, s.grid) for s in self.segments)
        if self._taken is None:
            return segments
        return segments, tuple(None if t is None else tuple(t.tolist()) for t in self.tokens)

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
        segment_T = torch.full((self.num_rows,), max(len(self.segments) - 1, 0), dtype=torch.int64)
        for i, s in enumerate(self.segments):
            segment_T[s.start : s.start + s.pitch] = i
        return segment_T.to(self.device)

    @cached_property
    def token_T(self) -> Tensor:
        """[T] int64: the canonical index of each row inside its segment; -1 for padding."""
        token_T = torch.full((self.num_rows,), -1, dtype=torch.int64)
        for s, tokens_L in zip(self.segments, self.tokens, strict=True):
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
        complete layout. A segment that keeps all of its tokens is as if None had been said, and
        where all do, this is the complete layout itself.
        """
        if self._taken is not None:
            tokens = [
                there if chosen is None else chosen
                for chosen, there in zip(tokens, self._taken.tokens, strict=True)
            ]
        tokens = [
            None if chosen is None or len(chosen) == s.length else chosen
            for s, chosen in zip(self.full.segments, tokens, strict=True)
        ]
        if all(chosen is None for chosen in tokens):
            return self.full
        segments = [
            s if chosen is None else replace(s, length=len(chosen))
            for s, chosen in zip(self.full.segments, tokens, strict=True)
        ]
        taken = Taken(self.full, tuple(tokens))
        return Rows(_laid_out(segments), device=self.device, taken=taken, halvings=self.halvings)

    def only(self, wanted: Sequence[bool]) -> Rows:
        """A complete layout of the wanted segments, where they stand; the others are empty. Raises
        RuntimeError where only some tokens of a wanted one were taken.
        """
        segments = []
        for want, s, tokens_L in zip(wanted, self.segments, self.tokens, strict=True):
            if want and tokens_L is not None:
                self.require_complete()
            segments.append(s if want else replace(s, length=0, grid=(0, 0, 0)))
        return Rows(segments, device=self.device, halvings=self.halvings, num_rows=self.num_rows)

    def unplaced(self) -> Rows:
        """The same rows as a complete layout of segments (1, 1, length): for queries, to which it
        does not matter which tokens they are.
        """
        segments = [replace(s, grid=(1, 1, s.length)) for s in self.segments]
        return Rows(segments, device=self.device, num_rows=self.num_rows)

    def level(self, k: int) -> Rows:
        """The same samples on grids coarsened k times by 2 in height and width; k = 0 is this. Of a
        taken layout, a coarse row is there if any of the rows under it is.
        """
        if k == 0:
            return self
        if k not in self._levels:
            self._levels[k] = self._build_level(k)
        return self._levels[k]

    @cached_property
    def _levels(self) -> dict[int, Rows]:
        return {}

    def _build_level(self, k: int) -> Rows:
        if self._taken is not None:
            above = [
                None if tokens_L is None else parents(s.grid, k)[tokens_L].unique()
                for s, tokens_L in zip(self.segments, self.tokens, strict=True)
            ]
            return self.full.level(k).take(above)
        grids = [coarser(s.grid, k) for s in self.segments]
        segments = [
            replace(s, length=math.prod(grid), grid=grid)
            for s, grid in zip(self.segments, grids, strict=True)
        ]
        return Rows(_laid_out(segments), device=self.device, halvings=self.halvings + k)

    def lookup(self, make: Callable[[Grid], Tensor]) -> Tensor:
        """Row constants such as positions: `make(grid)` gives [L, ...] for all tokens of a grid, of
        which each row gets its own; zero for padding. [T, ...].
        """
        tables = {grid: make(grid) for grid in {s.grid for s in self.segments}}
        like = next(iter(tables.values()))
        out_TD = like.new_zeros(self.num_rows, *like.shape[1:])
        for s, tokens_L in zip(self.segments, self.tokens, strict=True):
            table_LD = tables[s.grid]
            out_TD[s.start : s.start + s.length] = (
                table_LD if tokens_L is None else table_LD[tokens_L.to(table_LD.device)]
            )
        return out_TD

    def to_rows(self, table_MD: Tensor) -> Tensor:
        """Look up one table row per row: [M, D] -> [T, D]."""
        return table_MD[self.segment_T]

    def derived(self, key: Hashable, make: Callable[[], V]) -> V:
        """make(), or what it returned before for the same key and this very layout."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]  # pyright: ignore[reportReturnType]

    @cached_property
    def _derived(self) -> dict[Hashable, object]:
        return {}

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


def _laid_out(segments: Sequence[Segment]) -> list[Segment]:
    """The segments one behind the other."""
    ends = accumulate((s.pitch for s in segments), initial=0)
    return [replace(s, start=start) for s, start in zip(segments, ends, strict=False)]
