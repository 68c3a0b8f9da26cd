"""Evaluations and prompts that need not be computed, since somebody of the cluster has done so.

What is found is what would have been computed, to the byte, and goes through solvers, policies and
previews as if it had been. Only pages are missing then of samples that compute some of their tiles:
before such a sample needs them, what was found since is computed after all, once.

L rows of a sample branch, C channels of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from musiva.comm import Group
from musiva.core.types import Action, DenoiseItem, Path, Prompt
from musiva.engine import mosaic
from musiva.engine.gate import Passage, has_gate
from musiva.engine.lineage import Lineage, root_of, told_of
from musiva.engine.pipeline import Pipeline
from musiva.engine.slot import Slot, is_whole
from musiva.models.text import Words
from musiva.samplers import Schedule, initial_scale
from musiva.store import Cache, Page, key_of

__all__ = ["Debt", "Reuse"]

# Of what a step took, the share that counts against what was known.
SHARE = 0.2
ROWS, PADDING, TABLE = "rows", "padding", "table:"


@dataclass(slots=True)
class Debt:
    """What of a sample was found that its pages are to come of. slot: as it was before the first of
    the items, which are all that were done since.
    """

    slot: Slot
    items: list[DenoiseItem] = field(default_factory=list)


class Reuse:
    """Between an executor and the cache, over the executor's slots. Samples with gates take no
    part, since what their gates measure comes out of the model. root: of all names.
    """

    def __init__(
        self,
        cache: Cache,
        pipeline: Pipeline,
        slots: Mapping[str, Slot],
        schedule: Callable[[Path], Schedule],
        group: Group,
        form: str,
    ) -> None:
        self._cache, self._pipeline, self._slots = cache, pipeline, slots
        self._schedule, self._group = schedule, group
        self.root = root_of(pipeline, f"{group.size} {form}" if group.size > 1 else "1")
        self._debts: dict[str, Debt] = {}
        # Seconds of a row that is computed, and of a prompt.
        self._row_seconds: float | None = None
        self._prompt_seconds: float | None = None

    def begin(self, item: DenoiseItem) -> None:
        """Name what a sample starts from, which no plan has named yet."""
        slot = self._slots[item.sample]
        if item.evaluation or slot.lineage is not None or has_gate(item):
            return
        if item.fresh:
            scale = initial_scale(self._schedule(item.path))
            slot.lineage = Lineage.of_noise(self.root, item, slot.grid, scale)
        else:
            slot.lineage = Lineage.of_latent(self.root, item, slot.latent_LC, slot.grid)

    def found(self, items: Sequence[DenoiseItem]) -> dict[str, Passage]:
        """The items, which have skipped what they skip, of which what the model says is there, with
        several ranks on each of them; by sample.
        """
        pages: list[Page | None] = []
        for item in items:
            slot = self._slots[item.sample]
            if slot.lineage is not None and slot.lineage.root != self.root:
                # It has come from machines that would have made other bytes of it.
                slot.lineage = None
            if slot.lineage is not None:
                slot.lineage = slot.lineage.skipped(item, self._schedule(item.path))
            pages.append(self._page(item, slot))
        there = torch.tensor([page is not None for page in pages], dtype=torch.float32)
        if self._group.size > 1:
            there = self._group.sum(there)
        found: dict[str, Passage] = {}
        for item, page, count in zip(items, pages, there.tolist(), strict=True):
            slot = self._slots[item.sample]
            if page is None or count < self._group.size:
                self._ends(item, slot, unbroken=False)
                continue
            device = self._pipeline.device
            said = [page.tensors[str(i)].to(device) for i in range(len(item.computed))]
            passage = Passage(item, range(0), item.actions[-1], predictions=said)
            found[item.sample] = passage
            self._ends(item, slot, unbroken=True)
        return found

    def _ends(self, item: DenoiseItem, slot: Slot, *, unbroken: bool) -> None:
        if item.computes and slot.lineage is not None:
            slot.lineage = replace(slot.lineage, unbroken=unbroken)

    def _page(self, item: DenoiseItem, slot: Slot) -> Page | None:
        """What the model says to an item, if that is to be asked for, and is there.

        Behind an evaluation that nobody has made there is none to be asked for; behind one that
        came too late there are, on their way here with it.
        """
        lineage = slot.lineage
        if lineage is None or not item.computes:
            return None
        name = self._name(lineage, item, item.actions[-1])
        return self._cache.find(name, self._saves(item, slot), near=not lineage.unbroken)

    def due(self, items: Sequence[DenoiseItem]) -> list[Debt]:
        """What has to be computed after all, before these are: they need pages."""
        debts = [self._debts.pop(item.sample, None) for item in items]
        return [
            debt
            for item, debt in zip(items, debts, strict=True)
            if debt is not None and not is_whole(item.actions[-1])
        ]

    def enter(
        self, item: DenoiseItem, passage: Passage | None, before: Slot, *, found: bool
    ) -> None:
        """An item is done, of a sample that was so before it. passage: None where it only skips."""
        if found and is_whole(item.actions[-1]):
            # Whatever pages there were, all of them are to be written anew.
            self._debts.pop(item.sample, None)
        keeps = item.tile is not None or item.patches > 1
        if keeps and (found or item.sample in self._debts):
            self._debts.setdefault(item.sample, Debt(before)).items.append(item)
        slot = self._slots[item.sample]
        lineage = slot.lineage
        if passage is None or lineage is None:
            return
        name = self._name(lineage, item, passage.action)
        if not found:
            tensors = {str(i): x_LC for i, x_LC in enumerate(passage.predictions)}
            rows = sum(x_LC.shape[0] for x_LC in passage.predictions)
            page = Page(tensors, rows * (self._row_seconds or 0.0), lineage.last)
            self._cache.publish(name, page)
        schedule = self._schedule(item.path)
        slot.lineage = lineage.computed(name, item, passage.action, schedule)

    def took(self, rows: int, seconds: float) -> None:
        """A step that computed so many rows."""
        self._row_seconds = _mean(self._row_seconds, seconds / max(rows, 1))

    def forget(self, sample: str) -> None:
        self._debts.pop(sample, None)

    def words(self, prompts: Sequence[Prompt]) -> dict[Prompt, Words]:
        """Of those prompts that somebody has encoded."""
        found: dict[Prompt, Words] = {}
        for prompt in prompts:
            page = self._cache.find(self._name_of(prompt), self._prompt_seconds)
            if page is not None:
                found[prompt] = self._unpacked(page)
        return found

    def publish_words(self, words: Mapping[Prompt, Words], seconds: float) -> None:
        """What was encoded, in that time."""
        if not words:
            return
        each = seconds / len(words)
        self._prompt_seconds = _mean(self._prompt_seconds, each)
        for prompt, one in words.items():
            tensors = {ROWS: one.rows_LD} | {TABLE + n: x for n, x in one.tables.items()}
            if one.padding_LD is not None:
                tensors[PADDING] = one.padding_LD
            self._cache.publish(self._name_of(prompt), Page(tensors, each))

    def _name(self, lineage: Lineage, item: DenoiseItem, action: Action) -> str:
        """Of what the model says to an item."""
        told = told_of(self._pipeline, item, self._group.size)
        return lineage.evaluation(item, action, self._schedule(item.path), told)

    def _saves(self, item: DenoiseItem, slot: Slot) -> float | None:
        """Seconds of computing an item, as far as they are known."""
        if self._row_seconds is None:
            return None
        tokens_A = mosaic.tokens_of(item, slot.grid)
        rows = slot.latent_LC.shape[0] if tokens_A is None else len(tokens_A)
        return rows * len(item.computed) * self._row_seconds

    def _name_of(self, prompt: Prompt) -> str:
        return key_of("words", self.root, prompt)

    def _unpacked(self, page: Page) -> Words:
        device = self._pipeline.device
        tensors = {name: x.to(device) for name, x in page.tensors.items()}
        tables = {n.removeprefix(TABLE): x for n, x in tensors.items() if n.startswith(TABLE)}
        return Words(tensors[ROWS], tables, tensors.get(PADDING))


def _mean(known: float | None, seen: float) -> float:
    return seen if known is None else known + SHARE * (seen - known)
