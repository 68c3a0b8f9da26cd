"""The two levels at which ranks share a pack: which branches of guidance are whose, and which rows
of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from musiva.comm import Group
from musiva.core.pack import Pack, Segment
from musiva.core.run import Run
from musiva.core.types import DenoiseItem
from musiva.models import Denoiser
from musiva.parallel.forms import Sharing, rank_of
from musiva.parallel.sequence import SequenceRun
from musiva.parallel.spread import spread

__all__ = ["Team", "Teams"]


@dataclass(frozen=True, slots=True)
class Teams:
    """Which branches are whose. count: of teams; one has all of them. whole: a team has samples
    with all of their branches, chosen anew at every evaluation; else a branch stays with its team.
    """

    count: int
    whole: bool = False

    def own(self, items: Sequence[DenoiseItem], team: int) -> list[DenoiseItem]:
        """The items with the branches that are a team's."""
        if self.count == 1:
            return list(items)
        if self.whole:
            chosen = spread([_work_of(item) for item in items], self.count)
            mine = [
                item.computed if one == team else ()
                for item, one in zip(items, chosen, strict=True)
            ]
        else:
            mine = [
                tuple(b for b in item.computed if rank_of(item.sample, b, self.count) == team)
                for item in items
            ]
        return [replace(item, branches=own) for item, own in zip(items, mine, strict=True)]


class Team:
    """Which rows are whose, of the branches that the ranks of a group have together.

    run: for what a rank computes. least: tokens of a sample that have to be there for each rank to
    have one.
    """

    def __init__(self, model: Denoiser, run: Run, group: Group, sharing: Sharing | None) -> None:
        """sharing: how they do; None of one rank."""
        self.run, self.least = run, 1
        self._size, self._sharing, self._align = group.size, sharing, model.align
        self._sequence: SequenceRun | None = None
        if sharing is not None and group.size > 1 and model.divided:
            self.least = group.size
            self.run = self._sequence = SequenceRun(
                run, group, form=sharing, streams=model.divided, align=model.align
            )

    def undivided(self, pack: Pack) -> frozenset[int]:
        """Places of the branches of a complete pack that every rank has to run whole: those of
        which one would have no image rows; of words a rank may have none.
        """
        if self._size == 1:
            return frozenset()
        segments = pack.image.segments
        if self._sequence is None:
            return frozenset(range(len(segments)))
        return frozenset(i for i, one in enumerate(segments) if self._parts(one) < self._size)

    def part(self, pack: Pack) -> Pack:
        """This rank's part of a pack, of which no branch is undivided."""
        return pack if self._sequence is None else self._sequence.part(pack)

    def cuts(self, pack: Pack) -> list[list[int]]:
        """Of each branch of such a pack where the image rows of each rank begin, and the end."""
        if self._sequence is None:
            return [[0, segment.length] for segment in pack.image.segments]
        return self._sequence.cuts(pack)

    def _parts(self, segment: Segment) -> int:
        """The most ranks that can each have some of an image."""
        frames, height, _ = segment.grid
        if self._sharing == "dynamic":
            return frames
        if self._align > 1:
            return frames * height // self._align
        return segment.length


def _work_of(item: DenoiseItem) -> int:
    """In proportion to the tokens that are computed of an item without tiles."""
    return math.prod(item.size) * item.frames * len(item.computed)
