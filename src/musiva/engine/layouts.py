"""Items of a plan as a pack, and what the model is given for it.

L rows of a sample branch, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from musiva.core.pack import Grid, Pack, coarser
from musiva.core.types import DenoiseItem, Path, Prompt
from musiva.engine import mosaic
from musiva.engine.coarse import halved
from musiva.engine.pipeline import Pipeline
from musiva.engine.slot import Slot
from musiva.models import Inputs
from musiva.models.text import Words
from musiva.samplers import Schedule

__all__ = ["Layouts"]

REMEMBERED_PACKS = 32


class Layouts:
    """Over the slots and texts of an executor, by sample and prompt. Packs are remembered."""

    def __init__(
        self,
        pipeline: Pipeline,
        slots: Mapping[str, Slot],
        texts: Mapping[Prompt, Words],
        schedule: Callable[[Path], Schedule],
    ) -> None:
        self._pipeline, self._slots, self._texts = pipeline, slots, texts
        self._schedule = schedule
        self._packs: OrderedDict[object, Pack] = OrderedDict()

    def taken(self, items: Sequence[DenoiseItem]) -> Pack:
        """The pack of the tokens that the model computes."""
        return mosaic.take(self.pack(items), items, self.grids(items))

    def grids(self, items: Sequence[DenoiseItem]) -> list[Grid]:
        return [self._slots[item.sample].grid for item in items]

    def pack(self, items: Sequence[DenoiseItem]) -> Pack:
        """The pack of all tokens."""
        grids, prompts = zip(
            *((self._grid(i, b), i.prompts[b]) for i in items for b in i.computed),
            strict=True,
        )
        owners = tuple(owner for item in items for owner in mosaic.owners_of(item))
        lengths = tuple(rows_LD.shape[0] for item in items for rows_LD in self._text_rows(item))
        key = grids, prompts, lengths, owners
        if key not in self._packs:
            self._packs[key] = Pack.build(grids, lengths, prompts, self._pipeline.device, owners)
            if len(self._packs) > REMEMBERED_PACKS:
                self._packs.popitem(last=False)
        self._packs.move_to_end(key)
        return self._packs[key]

    def _text_rows(self, item: DenoiseItem) -> Sequence[Tensor]:
        """[L, D] for each branch that the model runs on."""
        words = [self._texts[prompt] for prompt in item.prompts]
        return [words[b].beside(words[0]) if b else words[0].rows_LD for b in item.computed]

    def _grid(self, item: DenoiseItem, branch: int) -> Grid:
        grid = self._slots[item.sample].grid
        return coarser(grid, 1) if item.coarse(branch) else grid

    def latent(self, item: DenoiseItem, branch: int) -> Tensor:
        """What a branch is computed from."""
        slot = self._slots[item.sample]
        if not item.coarse(branch):
            return slot.latent_LC
        return halved(slot.latent_LC, slot.grid, self._pipeline.denoiser.patch)

    def inputs(self, items: Sequence[DenoiseItem], pack: Pack) -> Inputs:
        owners = [item for item in items for _ in item.computed]
        latents = [self.latent(i, b) for i in items for b in i.computed]
        times = [self._schedule(item.path).timesteps[item.last] for item in owners]
        times += [0.0] * (pack.num_mod_rows - len(times))
        texts = [self._texts[p] for i in items for p in i.computed_prompts]
        return Inputs(
            latent_TC=pack.gather(latents),
            timestep_M=torch.tensor(times, device=self._pipeline.device),
            text_TD=pack.gather([x for item in items for x in self._text_rows(item)], "text"),
            extra=self._pipeline.conditions(
                texts, [item.guidance for item in owners], pack.num_mod_rows
            ),
        )
