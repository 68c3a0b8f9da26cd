"""Several ranks on the same plans: each computes a part, and has what comes of all.

A rank has the latents, anchors and records of all samples, which are small, and so does with a
prediction what one rank would. What it keeps for tiles and gates is of its own heads, rows or
branches; whether that is enough is agreed upon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from musiva.comm import Group
from musiva.core.errors import ExecutionFailed
from musiva.core.pack import Pack, Segment
from musiva.core.run import Run
from musiva.core.types import DenoiseItem
from musiva.engine.gate import Passage
from musiva.engine.paged import PagedRun
from musiva.models import Denoiser, Inputs
from musiva.parallel import Form, SequenceRun, check_form, rank_of, spread

__all__ = ["Ranks"]


class Ranks:
    """Divides packs, and brings together what comes of the parts. One rank divides nothing.

    run: for what a rank computes. by_branch: ranks have whole branches. least: tokens of a sample
    that have to be there for each rank to have one. keeps_all: what a rank keeps is of all tokens,
    heads and branches.
    """

    def __init__(
        self, model: Denoiser, run: PagedRun, group: Group, form: Form, *, whole: bool = False
    ) -> None:
        """whole: each rank has some samples with all of their branches, whatever the form. Raises
        InvalidInput for a form that the model cannot have.
        """
        check_form(form, group.size, model)
        self.group = group
        self.run: Run = run
        self.least = 1
        self.keeps_all = group.size == 1 or form == "patch"
        self._model, self._form, self._whole = model, form, whole
        self.by_branch = group.size > 1 and (whole or form == "branches")
        self._sequence: SequenceRun | None = None
        if group.size > 1 and model.divided and not self.by_branch:
            self.least = group.size
            self.run = self._sequence = SequenceRun(
                run, group, form=form, streams=model.divided, align=model.align
            )

    def undivided(self, pack: Pack) -> frozenset[int]:
        """Places of the branches of a complete pack that every rank has to run whole: those of
        which one would have no image rows; of words a rank may have none.
        """
        size, segments = self.group.size, pack.image.segments
        if size == 1 or self.by_branch:
            return frozenset()
        if self._sequence is None:
            return frozenset(range(len(segments)))
        return frozenset(i for i, one in enumerate(segments) if self._parts(one) < size)

    def own(self, items: Sequence[DenoiseItem], rank: int | None = None) -> list[DenoiseItem]:
        """The items with the branches that are this rank's, or another one's."""
        if not self.by_branch:
            return list(items)
        at, size = self.group.rank if rank is None else rank, self.group.size
        if self._whole:
            ranks = spread([_work_of(item) for item in items], size)
            mine = [
                item.computed if own == at else () for item, own in zip(items, ranks, strict=True)
            ]
        else:
            mine = [
                tuple(b for b in item.computed if rank_of(item.sample, b, size) == at)
                for item in items
            ]
        return [replace(item, branches=own) for item, own in zip(items, mine, strict=True)]

    def part(self, pack: Pack) -> Pack:
        """This rank's part of the pack of its own branches, of which none is undivided."""
        return pack if self._sequence is None else self._sequence.part(pack)

    def taken(self, inputs: Inputs, part: Pack) -> Inputs:
        """Of the inputs of a complete pack those of a part of it."""
        text_TD = inputs.text_TD
        if text_TD is not None and not part.streams["text"].complete:
            text_TD = text_TD[part.streams["text"].source_T]
        latent_TC = inputs.latent_TC
        if not part.image.complete:
            latent_TC = latent_TC[part.image.source_T]
        return replace(inputs, latent_TC=latent_TC, text_TD=text_TD)

    def join(
        self,
        items: Sequence[DenoiseItem],
        passages: Sequence[Passage],
        part: Pack | None,
        pack: Pack,
        *,
        gates: bool,
    ) -> None:
        """Give every rank the predictions of all parts. items: with all of their branches. part:
        what this rank computed of the pack of these; None for nothing. gates: they may have failed
        on one rank alone.
        """
        if self.by_branch:
            self._join_branches(items, passages, pack)
        elif self._sequence is None:
            return
        else:
            assert part is not None
            rows_TC = part.gather([x for one in passages for x in one.predictions])
            predictions = pack.split(self._sequence.joined(rows_TC, part))
            for one in passages:
                one.predictions = predictions[one.places.start : one.places.stop]
        if gates:
            self._share_errors(passages)

    def _join_branches(
        self, items: Sequence[DenoiseItem], passages: Sequence[Passage], pack: Pack
    ) -> None:
        lengths = iter([segment.length for segment in pack.image.segments])
        rows = {(i, b): next(lengths) for i, item in enumerate(items) for b in item.computed}
        every = [self.own(items, rank) for rank in range(self.group.size)]
        keys = [[(i, b) for i, item in enumerate(own) for b in item.computed] for own in every]
        width = self._model.out_channels * math.prod(self._model.patch)
        mine = [x for one in passages for x in one.predictions]
        # As a rank without any has them.
        like = next(self._model.parameters())
        sent = torch.cat(mine) if mine else like.new_empty(0, width)
        shapes = [(sum(rows[key] for key in own), width) for own in keys]
        found: dict[tuple[int, int], Tensor] = {}
        for own, x in zip(keys, self.group.exchange([sent] * len(keys), shapes), strict=True):
            found |= zip(own, x.split([rows[key] for key in own]), strict=True)
        for i, (item, one) in enumerate(zip(items, passages, strict=True)):
            one.item, one.predictions = item, [found[i, b] for b in item.computed]

    def _share_errors(self, passages: Sequence[Passage]) -> None:
        if self.group.size == 1:
            return
        failed = self.group.sum(torch.tensor([float(one.error is not None) for one in passages]))
        for one, count in zip(passages, failed.tolist(), strict=True):
            if count and one.error is None:
                message = "another rank has no room for what its gate keeps"
                one.error = ExecutionFailed(f"{one.item.sample}: {message}")

    def _parts(self, segment: Segment) -> int:
        """The most ranks that can each have some of an image."""
        frames, height, _ = segment.grid
        if self._form == "dynamic":
            return frames
        if self._model.align > 1:
            return frames * height // self._model.align
        return segment.length


def _work_of(item: DenoiseItem) -> int:
    """In proportion to the tokens that are computed of an item without tiles."""
    return math.prod(item.size) * item.frames * len(item.computed)
