"""Several ranks on the same plans: each computes a part of every sample, and has what comes of all.

A rank has the latents, anchors and records of all samples, which are small, and so does with a
prediction what one rank would. What it keeps for tiles is of its own heads, what it keeps for gates
of its own rows; whether that is enough is agreed upon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from musiva.comm import Group
from musiva.core.errors import ExecutionFailed
from musiva.core.pack import Pack, Segment
from musiva.core.run import Run
from musiva.engine.gate import Passage
from musiva.engine.paged import PagedRun
from musiva.models import Denoiser, Inputs
from musiva.parallel import Form, SequenceRun

__all__ = ["Ranks"]


class Ranks:
    """Divides packs, and brings together what comes of the parts. One rank divides nothing."""

    def __init__(self, model: Denoiser, run: PagedRun, group: Group, form: Form) -> None:
        self.group = group
        self.run: Run = run
        self._model, self._form = model, form
        self._sequence: SequenceRun | None = None
        if group.size > 1 and model.divided:
            self.run = self._sequence = SequenceRun(
                run, group, form=form, streams=model.divided, align=model.align
            )

    def undivided(self, pack: Pack) -> frozenset[int]:
        """Places of the branches of a complete pack that every rank has to run whole: those of
        which one would have no image rows; of words a rank may have none.
        """
        size, segments = self.group.size, pack.image.segments
        if self._sequence is None:
            return frozenset() if size == 1 else frozenset(range(len(segments)))
        return frozenset(i for i, one in enumerate(segments) if self._parts(one) < size)

    def part(self, pack: Pack) -> Pack:
        """This rank's part of a pack of which no branch is undivided."""
        return pack if self._sequence is None else self._sequence.part(pack)

    def _parts(self, segment: Segment) -> int:
        """The most ranks that can each have some of an image."""
        frames, height, _ = segment.grid
        if self._form == "dynamic":
            return frames
        if self._model.align > 1:
            return frames * height // self._model.align
        return segment.length

    def taken(self, inputs: Inputs, part: Pack) -> Inputs:
        """Of the inputs of a complete pack those of a part of it."""
        text_TD = inputs.text_TD
        if text_TD is not None and not part.streams["text"].complete:
            text_TD = text_TD[part.streams["text"].source_T]
        latent_TC = inputs.latent_TC
        if not part.image.complete:
            latent_TC = latent_TC[part.image.source_T]
        return replace(inputs, latent_TC=latent_TC, text_TD=text_TD)

    def join(self, passages: Sequence[Passage], part: Pack, pack: Pack, *, gates: bool) -> None:
        """Give every rank the predictions of all parts. gates: they may have failed on one rank
        alone.
        """
        if self._sequence is None:
            return
        rows_TC = part.gather([x for one in passages for x in one.predictions])
        predictions = pack.split(self._sequence.joined(rows_TC, part))
        for one in passages:
            one.predictions = predictions[one.places.start : one.places.stop]
        if not gates:
            return
        failed = self.group.sum(torch.tensor([float(one.error is not None) for one in passages]))
        for one, count in zip(passages, failed.tolist(), strict=True):
            if count and one.error is None:
                message = "another rank has no room for what its gate keeps"
                one.error = ExecutionFailed(f"{one.item.sample}: {message}")
