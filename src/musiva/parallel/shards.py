"""Which tokens of a pack each rank has.

Every sample is divided evenly, so that a rank has about its share of each one: along its sequence,
by whole frames, or by places that it has in all frames. A rank's part is a pack whose other rows
were taken out (`Pack.take`): positions, tables and words are looked up as they are for tiles. Of a
pack of which only some tokens are there these are divided, along the sequence.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor

from musiva.core.errors import InvalidInput
from musiva.core.pack import Grid, Pack, Rows, Segment

__all__ = ["Axis", "bounds", "cuts", "places_in", "real_rows", "shards"]

Axis = Literal["sequence", "frames", "places"]


def bounds(length: int, size: int) -> list[int]:
    """Where each of `size` even parts of a length begins, and the end."""
    return [length * i // size for i in range(size + 1)]


def cuts(grid: Grid, count: int, size: int, *, axis: Axis, align: int = 1) -> list[int]:
    """Where the tokens of each of `size` ranks begin, and the end. count: those of a grid that are
    there, which may be some of them in a sequence that is not aligned. Not of places, which lie
    apart.
    """
    frames, height, width = grid
    if axis == "frames":
        return [first * height * width for first in bounds(frames, size)]
    if align > 1:
        # Strips of one frame after another, none of which is cut.
        rows = frames * height
        return [min(first * align, rows) * width for first in bounds(-(-rows // align), size)]
    return bounds(count, size)


def shards(
    pack: Pack, size: int, *, axis: Axis, streams: Collection[str], align: int = 1
) -> list[Pack]:
    """The part of each rank of a pack. streams: those that are divided; others every rank has
    whole, and what is no image is divided along its sequence. align: image rows of tokens that stay
    together.

    Raises InvalidInput where a rank would have nothing of any image, or where frames or aligned
    rows of a pack are asked for of which some tokens were taken.
    """
    if not pack.image.complete and (axis != "sequence" or align > 1):
        raise InvalidInput("parallel", axis, "sequence, where only some tokens are there")
    found = []
    for rank in range(size):
        tokens = {
            name: [
                _tokens(segment, there, rank, size, axis if name == "image" else "sequence", align)
                for segment, there in zip(rows.segments, rows.tokens, strict=True)
            ]
            for name in sorted(streams)
            for rows in [pack.streams[name]]
        }
        if not any(map(len, tokens.get("image", [range(1)]))):
            grids = [segment.grid for segment in pack.image.segments]
            raise InvalidInput(
                "parallel", f"{size} ranks for {grids}", f"at least one part of {axis} each"
            )
        found.append(pack.take(tokens))
    return found


def _tokens(
    segment: Segment, there: Tensor | None, rank: int, size: int, axis: Axis, align: int
) -> Tensor:
    """[L] int64, ascending."""
    frames, height, width = segment.grid
    order = torch.arange(frames * height * width) if there is None else there
    if axis == "places":
        first, end = bounds(height * width, size)[rank : rank + 2]
        return order.view(frames, -1)[:, first:end].flatten()
    first, end = cuts(segment.grid, len(order), size, axis=axis, align=align)[rank : rank + 2]
    return order[first:end]


def real_rows(rows: Rows) -> Tensor:
    """[R] int64: those that are no padding."""
    return rows.derived("real", lambda: (rows.token_T >= 0).nonzero().flatten())


def places_in(rows: Rows, whole: Rows) -> Tensor:
    """[R] int64: of each real row of a part that of what was divided with the same token,
    ascending.
    """

    def made() -> Tensor:
        found = []
        for segment, own, there in zip(whole.segments, rows.tokens, whole.tokens, strict=True):
            if own is None:
                index = torch.arange(segment.length)
            else:
                index = own if there is None else torch.searchsorted(there, own)
            found.append(segment.start + index)
        return torch.cat(found).to(rows.device)

    return rows.derived(("places", id(whole)), made)
