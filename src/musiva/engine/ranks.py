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

from musiva.comm import Group, Lone
from musiva.core.errors import ExecutionFailed
from musiva.core.pack import Pack
from musiva.core.run import Run
from musiva.core.types import DenoiseItem
from musiva.engine.gate import Passage
from musiva.models import Denoiser, Inputs
from musiva.parallel import Form, Team, Teams, check_form, rows_of, teams_of

__all__ = ["Ranks"]


class Ranks:
    """Divides packs, and brings together what comes of the parts. One rank divides nothing.

    Branches of guidance are divided among teams, and the rows of these among the ranks of a team;
    with most forms one of the two is not divided.

    run: for what a rank computes. least: tokens of a sample that have to be there for each rank to
    have one. keeps_all: what a rank keeps is of all tokens, heads and branches.
    """

    def __init__(
        self, model: Denoiser, run: Run, group: Group, form: Form, *, whole: bool = False
    ) -> None:
        """whole: each rank has some samples with all of their branches, whatever the form. Every
        rank has to make its own. Raises InvalidInput for a form that the model or so many ranks
        cannot have.
        """
        check_form(form, group.size, model)
        count = teams_of(form, group.size)
        if whole or (count > 1 and not model.divided):
            # A rank of a team that cannot share rows would do what another one does.
            count = group.size
        self.group = group
        self.keeps_all = group.size == 1 or form == "patch"
        self._model = model
        self._teams = Teams(count, whole)
        self._each = group.size // count
        own = Lone() if self._each == 1 else group if count == 1 else group.split(count)
        self._team = Team(model, run, own, rows_of(form))
        self.run, self.least = self._team.run, self._team.least

    def undivided(self, pack: Pack) -> frozenset[int]:
        """Places of the branches of a complete pack that every rank has to run whole."""
        return self._team.undivided(pack)

    def own(self, items: Sequence[DenoiseItem]) -> list[DenoiseItem]:
        """The items with the branches of which this rank has rows."""
        return self._teams.own(items, self.group.rank // self._each)

    def part(self, pack: Pack) -> Pack:
        """This rank's part of the pack of its own branches, of which none is undivided."""
        return self._team.part(pack)

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
        pack: Pack,
        *,
        gates: bool,
    ) -> None:
        """Give every rank the predictions of all parts, each of which goes to each of them once.
        items: with all of their branches; pack: what is computed of these. passages: with those of
        this rank. gates: they may have failed on one rank alone.
        """
        if self.group.size == 1:
            return
        mine = [x for one in passages for x in one.predictions]
        # As a rank without any has them.
        like = next(self._model.parameters())
        width = self._model.out_channels * math.prod(self._model.patch)
        sent = torch.cat(mine) if mine else like.new_empty(0, width)
        counts = self._counts(items, pack)
        shapes = [(sum(own.values()), width) for own in counts]
        received = self.group.exchange([sent] * self.group.size, shapes)
        found: dict[tuple[int, int], list[Tensor]] = {}
        for own, x in zip(counts, received, strict=True):
            for key, piece in zip(own, x.split(list(own.values())), strict=True):
                found.setdefault(key, []).append(piece)
        for i, (item, one) in enumerate(zip(items, passages, strict=True)):
            one.item = item
            one.predictions = [torch.cat(found[i, branch]) for branch in item.computed]
        if gates:
            self._share_errors(passages)

    def _counts(self, items: Sequence[DenoiseItem], pack: Pack) -> list[dict[tuple[int, int], int]]:
        """Of each rank, how many rows it has of each of its branches, by item and branch."""
        every = [(i, branch) for i, item in enumerate(items) for branch in item.computed]
        cuts = dict(zip(every, self._team.cuts(pack), strict=True))
        found = []
        for team in range(self._teams.count):
            own = self._teams.own(items, team)
            keys = [(i, branch) for i, item in enumerate(own) for branch in item.computed]
            for place in range(self._each):
                found.append({key: cuts[key][place + 1] - cuts[key][place] for key in keys})
        return found

    def _share_errors(self, passages: Sequence[Passage]) -> None:
        failed = self.group.sum(torch.tensor([float(one.error is not None) for one in passages]))
        for one, count in zip(passages, failed.tolist(), strict=True):
            if count and one.error is None:
                message = "another rank has no room for what its gate keeps"
                one.error = ExecutionFailed(f"{one.item.sample}: {message}")
