"""Samples of which only some tiles are computed, in packs with all others.

The rows of the chosen tiles are taken, and for what mixes tokens the pages of a `PagedRun` stand
for the others. Both branches of guidance share the choice. Then what the model says of some tokens
is put among what is forecast of the rest, and taken like any data prediction: by the solver, and as
what later forecasts start from. A forecast that is taken as a value goes on along its own line, and
where a token is computed again its line is mended, so every token has a history of its own, though
all share the places of it.

L tokens of a sample, A of them that are computed, C channels of a token.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from musiva.comm import Group
from musiva.core.pack import Grid, Pack
from musiva.core.tiling import tile_tokens
from musiva.core.types import DenoiseItem
from musiva.engine.gate import BRANCHES
from musiva.engine.paged import PagedRun
from musiva.policy import Anchors

__all__ = [
    "join",
    "keeping",
    "merge",
    "owners_of",
    "pages_of",
    "settled",
    "spread",
    "take",
    "tokens_of",
]


def pages_of(sample: str) -> list[Hashable]:
    """All owners of pages that a sample may have for its tiles."""
    return [(sample, branch, "tiles") for branch in BRANCHES]


def owners_of(item: DenoiseItem) -> list[Hashable]:
    """For each branch that an item computes, whose pages its rows are kept in; None for nobody's.
    The rows of a coarser grid stand for no tokens of the sample.
    """
    owners = pages_of(item.sample)
    kept = item.tile is not None or item.patches > 1
    return [
        owners[branch] if kept and not item.coarse(branch) else None for branch in item.computed
    ]


def settled(
    items: Sequence[DenoiseItem],
    own: Sequence[DenoiseItem],
    grids: Sequence[Grid],
    run: PagedRun,
    group: Group,
    least: int = 1,
) -> list[DenoiseItem]:
    """Items as they can be done: with all tiles where pages of the absent ones are missing, on
    whatever rank, or where there are fewer than `least` tokens. own: what of each this rank
    computes. grids: one for each item.
    """
    # Every owner is asked, so that hits and misses are counted alike.
    missing = [
        _lacking(item, grid, run, least) if _has_tiles(item) else 0
        for item, grid in zip(own, grids, strict=True)
    ]
    if group.size > 1 and any(map(_has_tiles, items)):
        missing = group.sum(torch.tensor(missing)).tolist()
    return [_in_full(item) if lost else item for item, lost in zip(items, missing, strict=True)]


def _lacking(item: DenoiseItem, grid: Grid, run: PagedRun, least: int) -> int:
    """Owners of which something is missing, and whether there are too few tokens."""
    tokens_A = tokens_of(item, grid)
    few = tokens_A is not None and len(tokens_A) < least
    return few + sum(not run.can_take(owner, grid) for owner in owners_of(item))


def _has_tiles(item: DenoiseItem) -> bool:
    return item.actions[-1].tiles is not None


def _in_full(item: DenoiseItem) -> DenoiseItem:
    return replace(item, actions=(*item.actions[:-1], replace(item.actions[-1], tiles=None)))


def tokens_of(item: DenoiseItem, grid: Grid) -> Tensor | None:
    """[A] int64 on the host, rising: the tokens that an item computes; None for all."""
    tiles = item.actions[-1].tiles
    if tiles is None or item.tile is None:
        return None
    return tile_tokens(grid, item.tile, tiles)


def take(pack: Pack, items: Sequence[DenoiseItem], grids: Sequence[Grid]) -> Pack:
    """What the items compute of the pack of all of their tokens; itself if that is all. grids: one
    for each item.
    """
    tokens = [
        tokens_of(item, grid)
        for item, grid in zip(items, grids, strict=True)
        for _ in item.computed
    ]
    return pack.take({"image": tokens})


def keeping(run: PagedRun, pack: Pack, items: Sequence[DenoiseItem]) -> AbstractContextManager:
    """For one forward of the pack: the rows of items with tiles go into their pages."""
    versions = {
        owner: item.last for item in items for owner in owners_of(item) if owner is not None
    }
    return run.begin(pack, versions) if versions else nullcontext()


def spread(x_AC: Tensor, tokens_A: Tensor, others_LC: Tensor) -> Tensor:
    """[L, C]: `others_LC`, with these tokens in their places."""
    return others_LC.index_copy(0, tokens_A.to(others_LC.device), x_AC)


def merge(computed_LC: Tensor, forecast_LC: Tensor, tokens_A: Tensor | None) -> Tensor:
    """[L, C]: these tokens of the first, or all, and the others of the second."""
    if tokens_A is None:
        return computed_LC
    return spread(computed_LC[tokens_A.to(computed_LC.device)], tokens_A, forecast_LC)


def join(
    anchors: Anchors,
    since_L1: Tensor | None,
    computed_LC: Tensor,
    forecast_LC: Tensor,
    tokens_A: Tensor | None,
    place: float,
) -> tuple[Anchors, Tensor | None, Tensor]:
    """Take in a field of which these tokens were computed, or all, and the others forecast. Returns
    the anchors with true histories of those that were computed; since when each token has not been,
    the next `since_L1`; and the field, which is the next anchor.

    since_L1: the place at which each token was computed last; None: all at the newest anchor's.
    """
    field_LC = merge(computed_LC, forecast_LC, tokens_A)
    if since_L1 is not None:
        anchors = _mended(anchors, since_L1, field_LC - forecast_LC, place)
    if tokens_A is None:
        return anchors, None, field_LC
    if since_L1 is None:
        since_L1 = torch.full_like(field_LC[:, :1], anchors.places[0])
    return anchors, since_L1.index_fill(0, tokens_A.to(since_L1.device), place), field_LC


def _mended(anchors: Anchors, since_L1: Tensor, error_LC: Tensor, place: float) -> Anchors:
    """Where a token was forecast for a while, its anchors of that time are moved by a share of the
    error that has now shown, as far as they are on the way between its two true values. Without it
    the whole error would look like a change since the newest anchor, and the slope would explode.
    """
    way_L1 = torch.where(since_L1 > place, since_L1 - place, 1.0)
    values = []
    for value_LC, at in zip(anchors.values, anchors.places, strict=True):
        values.append(value_LC + ((since_L1 - at) / way_L1).clamp(min=0.0) * error_LC)
    return Anchors(tuple(values), anchors.places, anchors.latent)
