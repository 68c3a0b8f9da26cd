"""Samples whose tokens are computed in parts that do not see each other: patch parallel.

A part attends to its own fresh features, and to what the other parts wrote when they were computed
last, as if their rows were absent (DistriFusion: Li et al., 2024, arXiv 2402.19481). So ranks send
nothing inside of a forward; behind it they exchange what sites keep and what the model predicts,
all in one, and every rank has the pages of all tokens again. Which tokens a part has follows from
the action and the grid alone. One rank that computes the parts one after the other comes to what
several come to, and so does a worker of another degree.

Parts are balanced by the tokens that are computed, whatever tiles those are in, at each evaluation
anew: which pages a rank has never says what it computes.

A tokens of a sample that are computed, N tokens of a part.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from musiva.core.pack import Grid
from musiva.core.tiling import Tile, tile_members
from musiva.core.types import DenoiseItem
from musiva.engine import mosaic
from musiva.engine.gate import Passage, passages_of
from musiva.engine.layouts import Layouts
from musiva.engine.paged import PagedRun
from musiva.engine.ranks import Ranks
from musiva.engine.runner import forward
from musiva.models import Denoiser
from musiva.parallel import bounds

__all__ = ["Patches", "parts_of"]

# By owner and site, of the tokens of a part; what is predicted of them has no site.
Features = Mapping[tuple[Hashable, str], Tensor]
Forms = dict[tuple[Hashable, str], tuple[tuple[int, ...], torch.dtype]]
PREDICTION = ""


@lru_cache(maxsize=256)
def parts_of(
    grid: Grid, tile: Tile | None, tiles: tuple[bool, ...] | None, count: int
) -> tuple[Tensor, ...]:
    """[N] int64 each, on the host, rising, not to be changed: the tokens of each of `count` parts
    of those that are computed. They follow each other in the order of tiles, or of rows where there
    are none, and the largest part has at most one token more than the smallest, which may have
    none.
    """
    order_A = _in_order(grid, tile, tiles)
    return tuple(
        order_A[first:end].sort().values for first, end in pairwise(bounds(len(order_A), count))
    )


def _in_order(grid: Grid, tile: Tile | None, tiles: tuple[bool, ...] | None) -> Tensor:
    """[A] int64: the tokens that are computed, a tile after the other."""
    if tile is None:
        return torch.arange(math.prod(grid))
    members_NM = tile_members(grid, tile)
    if tiles is not None:
        members_NM = members_NM[torch.tensor(tiles)]
    return members_NM[members_NM >= 0]


@dataclass(frozen=True, slots=True)
class Piece:
    """What a part has of one sample: tokens_N of its grid, of each branch that is computed."""

    item: DenoiseItem
    grid: Grid
    tokens_N: Tensor

    @property
    def owners(self) -> list[Hashable]:
        return mosaic.owners_of(self.item)


class Patches:
    """Computes items whose last action cuts them. Part i is that of rank i; where there are more
    parts than ranks, these take further turns.
    """

    def __init__(self, model: Denoiser, run: PagedRun, ranks: Ranks, layouts: Layouts) -> None:
        """run: what the ranks of a group keep pages by; those of all tokens, on every rank."""
        self._model, self._run, self._ranks, self._layouts = model, run, ranks, layouts

    def divided(self, items: Sequence[DenoiseItem]) -> tuple[list[DenoiseItem], list[DenoiseItem]]:
        """Those that are computed in parts, and the others, all of them together: also those of
        which pages are missing, on whatever rank, or that have too few tokens.
        """
        wanted = [item for item in items if item.actions[-1].patches > 1]
        missing = [
            self._lacking(item, grid)
            for item, grid in zip(wanted, self._layouts.grids(wanted), strict=True)
        ]
        if wanted and self._ranks.group.size > 1:
            missing = self._ranks.group.sum(torch.tensor(missing)).tolist()
        found = [item for item, count in zip(wanted, missing, strict=True) if not count]
        names = {item.sample for item in found}
        return found, [_together(item) for item in items if item.sample not in names]

    def forward(self, items: Sequence[DenoiseItem]) -> tuple[Mapping[str, Passage], int]:
        """One evaluation of the model for such items, by sample, and the rows that went through all
        of it: as many on every rank as on this one.
        """
        size, grids = self._ranks.group.size, self._layouts.grids(items)
        cuts = [_cut(item, grid) for item, grid in zip(items, grids, strict=True)]
        parts = [
            [
                Piece(item, grid, cut[number])
                for item, grid, cut in zip(items, grids, cuts, strict=True)
                if number < len(cut)
            ]
            for number in range(max(map(len, cuts)))
        ]
        own: dict[int, Features] = {}
        rows = 0
        for number in range(self._ranks.group.rank, len(parts), size):
            own[number], more = self._computed(parts[number])
            rows += more
        found = self._exchanged(own, parts)
        for part, features in zip(parts, found, strict=True):
            self._write(part, features)
        passages = passages_of(items)
        for one, cut in zip(passages, cuts, strict=True):
            order_A = torch.cat(cut).argsort()
            for owner in mosaic.owners_of(one.item):
                x_AC = torch.cat([features[owner, PREDICTION] for features in found[: len(cut)]])
                one.predictions = [*one.predictions, x_AC[order_A.to(x_AC.device)]]
        return {one.item.sample: one for one in passages}, rows * size

    def _lacking(self, item: DenoiseItem, grid: Grid) -> int:
        """Owners of which something is missing, and whether a part would have no token."""
        few = not all(map(len, _cut(item, grid)))
        # Every owner is asked, so that hits and misses are counted alike.
        lost = sum(not self._run.can_take(owner, grid) for owner in mosaic.owners_of(item))
        return lost + few + (not self._ranks.keeps_all)

    def _computed(self, part: Sequence[Piece]) -> tuple[Features, int]:
        """What it makes of a part, and its rows. Pages are as they were, for the other parts."""
        items = [piece.item for piece in part]
        whole, before = self._layouts.pack(items), self._read(part)
        tokens = [piece.tokens_N for piece in part for _ in piece.item.computed]
        pack = whole.take({"image": tokens})
        inputs = self._ranks.taken(self._layouts.inputs(items, whole), pack)
        with mosaic.keeping(self._run, pack, items):
            predictions = pack.split(forward(self._model, inputs, pack, self._run))
        features = self._read(part)
        self._write(part, before)
        owners = [owner for piece in part for owner in piece.owners]
        for owner, x_NC in zip(owners, predictions, strict=True):
            features[owner, PREDICTION] = x_NC.float()
        return features, pack.image.num_rows

    def _read(self, part: Sequence[Piece]) -> dict[tuple[Hashable, str], Tensor]:
        """Copies of what sites keep of its tokens."""
        found = {}
        for piece in part:
            for owner in piece.owners:
                for site in self._run.needs(piece.grid):
                    x_LF = self._run.store.read(owner, site)
                    found[owner, site] = x_LF[piece.tokens_N.to(x_LF.device)]
        return found

    def _write(self, part: Sequence[Piece], features: Features) -> None:
        """Where features of before are put back, their version is soon true."""
        for piece in part:
            for owner in piece.owners:
                for site in self._run.needs(piece.grid):
                    x_NF, version = features[owner, site], piece.item.last
                    self._run.store.write(owner, site, x_NF, piece.tokens_N, version=version)

    def _exchanged(
        self, own: Mapping[int, Features], parts: Sequence[Sequence[Piece]]
    ) -> list[Features]:
        """What all ranks have made of their parts, by number, from what this one has."""
        group = self._ranks.group
        if group.size == 1:
            return [own[number] for number in range(len(parts))]
        forms = [self._forms(part) for part in parts]
        numbers = [range(rank, len(parts), group.size) for rank in range(group.size)]
        lengths = [sum(_bytes_of(forms[n]) for n in several) for several in numbers]
        sent = _packed(
            [features[key] for number, features in own.items() for key in forms[number]],
            self._run.store.config.device,
        )
        received = group.exchange([sent] * group.size, [(length,) for length in lengths])
        found: dict[int, Features] = {}
        for several, x in zip(numbers, received, strict=True):
            pieces = x.split([_bytes_of(forms[n]) for n in several])
            for number, piece in zip(several, pieces, strict=True):
                found[number] = _unpacked(piece, forms[number])
        return [found[number] for number in range(len(parts))]

    def _forms(self, part: Sequence[Piece]) -> Forms:
        """Of the features of a part, as any rank makes them, in the order of sending."""
        width = self._model.out_channels * math.prod(self._model.patch)
        found: Forms = {}
        for piece in part:
            count = len(piece.tokens_N)
            for owner in piece.owners:
                for site, need in self._run.needs(piece.grid).items():
                    found[owner, site] = (count, *need.feature), need.dtype
                found[owner, PREDICTION] = (count, width), torch.float32
        return found


def _bytes_of(forms: Forms) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in forms.values())


def _packed(several: Sequence[Tensor], device: torch.device | str) -> Tensor:
    """As bytes: what sites keep may be of several dtypes. A rank may have nothing."""
    nothing = torch.zeros(0, dtype=torch.uint8, device=device)
    return torch.cat([nothing, *(x.contiguous().view(-1).view(torch.uint8) for x in several)])


def _unpacked(x: Tensor, forms: Forms) -> Features:
    """What was sent as bytes."""
    pieces = x.split([math.prod(shape) * dtype.itemsize for shape, dtype in forms.values()])
    return {
        # A copy begins where its dtype may begin.
        key: piece.clone().view(dtype).view(shape)
        for (key, (shape, dtype)), piece in zip(forms.items(), pieces, strict=True)
    }


def _cut(item: DenoiseItem, grid: Grid) -> tuple[Tensor, ...]:
    action = item.actions[-1]
    return parts_of(grid, item.tile, action.tiles, action.patches)


def _together(item: DenoiseItem) -> DenoiseItem:
    action = item.actions[-1]
    if action.patches == 1:
        return item
    return replace(item, actions=(*item.actions[:-1], replace(action, patches=1)))
