"""Executors: the only code that touches devices. This one runs every plan here and now.

L rows of one sample branch, C channels of a token, T rows of a pack.
"""

from __future__ import annotations

import logging
import time
from collections import ChainMap
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from musiva.comm import Group, LinkFigures, Lone
from musiva.core.errors import ExecutionFailed, InvalidInput, MusivaError, NonFinite, RankLost
from musiva.core.pack import Pack
from musiva.core.types import (
    DecodeItem,
    DenoiseItem,
    EncodeItem,
    Kind,
    Outcome,
    Path,
    Prompt,
    StepPlan,
    StepResult,
)
from musiva.engine import gate, mosaic
from musiva.engine.apart import divided, in_full
from musiva.engine.decoding import Decoding
from musiva.engine.evaluations import Evaluations
from musiva.engine.gate import Gates, Passage, has_gate, passages_of
from musiva.engine.layouts import Layouts
from musiva.engine.measured import Measurements
from musiva.engine.paged import PagedRun
from musiva.engine.patches import Patches
from musiva.engine.pipeline import Pipeline
from musiva.engine.preview import LatentPreview
from musiva.engine.ranks import Ranks
from musiva.engine.reuse import Debt, Reuse
from musiva.engine.runner import forward
from musiva.engine.slot import Checkpoint, Slot, is_whole
from musiva.models import Denoiser
from musiva.models.text import Words
from musiva.parallel import Form
from musiva.samplers import Schedule, initial_scale
from musiva.store import Cache, Figures, Store

__all__ = ["STORE_BYTES", "InlineExecutor"]

log = logging.getLogger(__name__)
STORE_BYTES = 256 << 20


class Denoised(NamedTuple):
    """Of a step. rows, strayed: as of `StepResult`."""

    outcomes: list[Outcome]
    rows: int
    strayed: bool


class InlineExecutor:
    """Runs plans in this process on one device. Owns the slots that plans name by sample and
    prompt, and the store of what gates hold and of what tiles that are not computed are needed for,
    of `store_bytes`, which are taken when something is first kept.

    execute() never raises for what one item did: its outcome carries the error and the others go
    on. It raises RankLost where a rank of its group is lost. store_figures: of the store after the
    last step; any thread may read it.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        store_bytes: int = STORE_BYTES,
        group: Group | None = None,
        form: Form = "ulysses",
        cache: Cache | None = None,
    ) -> None:
        """group: of ranks that run the same plans, each with an executor of its own; form: how they
        share them. cache: of what was computed before, here or elsewhere. Raises InvalidInput for
        store_bytes below 1, and for a form that the model cannot have.
        """
        if store_bytes < 1:
            raise InvalidInput("store_bytes", store_bytes, "a whole number of at least 1")
        self.pipeline = pipeline
        self.store = Store.Config(budget_bytes=store_bytes, device=pipeline.device).build()
        # Where no sample of a pack has tiles it is a plain run.
        self.run = PagedRun(self.store, pipeline.linears)
        group = group or Lone()
        self.ranks = Ranks(pipeline.denoiser, self.run, group, form)
        # For samples that ranks do not share.
        self._apart = Ranks(pipeline.denoiser, self.run, group, form, whole=True)
        self._decoding = Decoding(pipeline, group)
        self.gates = Gates(pipeline.denoiser, self.ranks.run, self.store, self.ranks.group)
        self.store_figures: Figures = self.store.figures()
        self._slots: dict[str, Slot] = {}
        self._checkpoints: dict[str, Checkpoint] = {}
        self._texts: dict[Prompt, Words] = {}
        self._latent_preview: LatentPreview | None = None
        self._kriging = pipeline.kriging
        self._schedule: Callable[[Path], Schedule] = lru_cache(maxsize=256)(pipeline.schedule)
        self.layouts = Layouts(pipeline, self._slots, self._texts, self._schedule)
        self.patches = Patches(pipeline.denoiser, self.run, self.ranks, self.layouts)
        self.evaluations = Evaluations(pipeline, self._slots, self.layouts, self._schedule)
        self._reuse: Reuse | None = None
        self._cache = cache
        if cache is not None:
            shared = self.ranks.group, form
            self._reuse = Reuse(cache, pipeline, self._slots, self._schedule, *shared)

    @property
    def root(self) -> str | None:
        """Of the names of all that it makes (`lineage.root_of`); None without a cache."""
        return None if self._reuse is None else self._reuse.root

    @property
    def links(self) -> Sequence[LinkFigures]:
        """Of the first rank to the others together, and to other hosts. Any thread may ask."""
        group = self.ranks.group
        ranks = "1" if group.size == 2 else f"1-{group.size - 1}"
        own = (group.meter.figures("ranks", ranks),) if group.size > 1 else ()
        return (*own, *(() if self._cache is None else self._cache.links))

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    def put_latent(self, sample: str, latent: Tensor) -> None:
        """Give a sample its starting latent, at the noise level of its first evaluation, and let
        go of what one of its id had.
        """
        self._drop(sample)
        tokens_LC, grid = self.pipeline.tokens(latent.to(self.pipeline.device, torch.float32))
        self._slots[sample] = Slot(tokens_LC, grid)

    def checkpoint(self, sample: str) -> Checkpoint | None:
        """The latest of a sample, which shares its tensors; None before there is one."""
        return self._checkpoints.get(sample)

    def restore(self, sample: str, checkpoint: Checkpoint) -> None:
        """Let a sample go on from there, and let go of what one of its id had."""
        self._drop(sample)
        slot = self._slots[sample] = checkpoint.to(self.pipeline.device).slot
        if self._reuse is None:
            # Nobody here keeps account of what comes next.
            slot.lineage = None
        elif slot.lineage is not None:
            # Whoever had it has published what it computed.
            slot.lineage = replace(slot.lineage, unbroken=True)

    def latent(self, sample: str) -> Tensor:
        """float32: the latent of a sample as it stands, as `Pipeline.latent_shape` has it."""
        slot = self._slots[sample]
        return self.pipeline.latent(slot.latent_LC, slot.grid)

    @torch.inference_mode()
    def skipped_latents(self, item: DenoiseItem) -> list[Tensor]:
        """The latents after each evaluation that an item skips, before it is executed and without a
        trace; where it computes, `latent` has the one after that.
        """
        found, slot = [], self._slots.get(item.sample)
        for end in range(1, len(item.actions) + (not item.computes)):
            assert slot is not None, "a sample computes first"
            self._slots[item.sample] = slot.copy()
            self.evaluations.skip(replace(item, actions=item.actions[:end], preview=False))
            found.append(self.latent(item.sample))
            self._slots[item.sample] = slot
        return found

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepResult:
        start, rows, strayed = time.perf_counter(), 0, False
        for sample in plan.release:
            self._drop(sample)
        for prompt in plan.drop_texts:
            self._texts.pop(prompt, None)
        try:
            if not plan.items:
                outcomes = []  # a plan that only frees slots
            elif plan.kind is Kind.ENCODE:
                outcomes = self._encode([i for i in plan.items if isinstance(i, EncodeItem)])
                strayed = any(outcome.found for outcome in outcomes)
            elif plan.kind is Kind.DENOISE:
                outcomes, rows, strayed = self._denoise(
                    [i for i in plan.items if isinstance(i, DenoiseItem)]
                )
            else:
                outcomes = [self._decode(i) for i in plan.items if isinstance(i, DecodeItem)]
        except RankLost:
            # Nobody of the group can go on; what it had goes on elsewhere.
            raise
        except Exception as error:
            if self.ranks.group.size > 1 and plan.kind is not Kind.ENCODE:
                # The others may be somewhere else in it.
                raise RankLost(f"a rank failed: {error}") from error
            # The boundary of a step: all of its requests fail, the engine lives on.
            log.exception("step %d (%s) failed: %s", plan.number, plan.kind, plan.items)
            reason = (
                error
                if isinstance(error, MusivaError)
                else ExecutionFailed(f"{plan.kind} failed: {error}")
            )
            outcomes = [Outcome(error=reason) for _ in plan.items]
        self.store_figures = self.store.figures()
        seconds = time.perf_counter() - start
        return StepResult(plan.number, tuple(outcomes), seconds, rows, strayed)

    def check_integrity(self, live: Sequence[str]) -> None:
        """Raise AssertionError if a slot or a page belongs to no live sample, or the store is
        broken.
        """
        leaked = (set(self._slots) | set(self._checkpoints)) - set(live)
        assert not leaked, f"slots of samples that ended: {sorted(leaked)}"
        self.store.check_integrity()
        allowed = {owner for sample in live for owner in _pages_of(sample)}
        lost = [owner for owner in self.store.owners if owner not in allowed]
        assert not lost, f"pages of samples that ended: {lost}"

    def _drop(self, sample: str) -> None:
        """Let go of all that there is of a sample."""
        self._slots.pop(sample, None)
        self._checkpoints.pop(sample, None)
        if self._reuse is not None:
            self._reuse.forget(sample)
        self._free(sample)

    def _free(self, sample: str) -> None:
        """Let go of all pages of a sample."""
        for owner in _pages_of(sample):
            self.store.free(owner)

    def _encode(self, items: Sequence[EncodeItem]) -> list[Outcome]:
        prompts = [item.prompt for item in items]
        known = {} if self._reuse is None else self._reuse.words(prompts)
        others = [prompt for prompt in prompts if prompt not in known]
        start = time.perf_counter()
        encoded = self.pipeline.text.words(others) if others else []
        new = dict(zip(others, encoded, strict=True))
        if self._reuse is not None:
            self._reuse.publish_words(new, time.perf_counter() - start)
        self._texts.update(known | new)
        return [Outcome(found=item.prompt in known) for item in items]

    def _denoise(self, items: Sequence[DenoiseItem]) -> Denoised:
        for item in items:
            if item.fresh and item.evaluation == 0 and item.sample not in self._slots:
                self._start(item)
            if self._reuse is not None:
                self._reuse.begin(item)
        before = {item.sample: self._slots[item.sample].copy() for item in items}
        clean = {item.sample: self.evaluations.skip(item) for item in items}
        told = Measurements(self._kriging)
        found = {} if self._reuse is None else self._reuse.found(items)
        computed, rows = [i for i in items if i.computes and i.sample not in found], 0
        debts = [] if self._reuse is None else self._reuse.due(computed)
        for debt in debts:
            self._repay(debt)
        start, passages = time.perf_counter(), dict(found)
        if computed:
            others, rows = self._evaluate(computed)
            passages |= others
        for passage in passages.values():
            if passage.error is None:
                clean[passage.item.sample] = self._take(passage, told)
        # One transfer tells of all samples whether they are still numbers, and what was measured.
        for item in items:
            told.add(item.sample, "finite", self._slots[item.sample].latent_LC.isfinite().all())
        measured = told.read()
        if self._reuse is not None and rows:
            self._reuse.took(rows, time.perf_counter() - start)
        previews = self._preview(
            {
                i.sample: x
                for i in items
                if i.preview and not self.ranks.group.rank and (x := clean[i.sample]) is not None
            }
        )
        outcomes = []
        for item in items:
            passage, numbers = passages.get(item.sample), measured[item.sample]
            error, action = (passage.error, passage.action) if passage else (None, None)
            if not numbers.pop("finite") and error is None:
                error = NonFinite(f"evaluation {item.last + 1}: the prediction is not finite")
            if error is not None:
                # What is not finite in them must not be read again.
                self._free(item.sample)
                outcomes.append(Outcome(error=error))
                continue
            if passage is not None and is_whole(passage.action):
                checkpoint = Checkpoint(item.evaluation, before[item.sample])
                self._checkpoints[item.sample] = checkpoint
            numbers |= passage.measured if passage else {}
            is_found = item.sample in found
            if self._reuse is not None:
                self._reuse.enter(item, passage, before[item.sample], found=is_found)
            shown = previews.get(item.sample, Outcome())
            outcomes.append(replace(shown, measured=numbers, action=action, found=is_found))
        return Denoised(outcomes, rows, strayed=bool(found or debts))

    def _take(self, passage: Passage, told: Measurements) -> Tensor | None:
        """Take the evaluation of a passage; see `Evaluations.take`."""
        passage.predictions = [
            self.pipeline.clean_channels(x_LC).float().contiguous() for x_LC in passage.predictions
        ]
        return self.evaluations.take(passage.item, passage.predictions, told)

    def _repay(self, debt: Debt) -> None:
        """Compute what was found instead, for the pages that come of it."""
        name = debt.items[0].sample
        slot, self._slots[name] = self._slots[name], debt.slot.copy()
        try:
            for item in debt.items:
                self.evaluations.skip(item)
                if item.computes:
                    passages, _ = self._evaluate([item])
                    self._take(passages[name], Measurements(self._kriging))
        finally:
            self._slots[name] = slot

    def _evaluate(self, items: Sequence[DenoiseItem]) -> tuple[Mapping[str, Passage], int]:
        """One evaluation of the model for items that compute, by sample, and the rows that went
        through all of it. Those of which it refuses a branch run apart.
        """
        model, found = self.pipeline.denoiser, []
        others, apart = divided(items, model.refused(self.layouts.pack(items)))
        if apart:
            found.append(self._forward_whole(apart, model.apart))
        if others:
            # One rank has all of them together, whatever is recorded.
            several = self.ranks.group.size > 1
            alone = [item for item in others if several and item.actions[-1].alone]
            others = [item for item in others if not (several and item.actions[-1].alone)]
            found += [self._forward(alone, self._apart)] if alone else []
        if others:
            others, small = divided(others, self.ranks.undivided(self.layouts.pack(others)))
            cut, others = self.patches.divided(others)
            found += [self.patches.forward(cut)] if cut else []
            found += [self._forward(others, self.ranks)] if others else []
            found += [self._forward_whole(small, model)] if small else []
        return dict(ChainMap(*(passages for passages, _ in found))), sum(rows for _, rows in found)

    def _forward_whole(
        self, items: Sequence[DenoiseItem], model: Denoiser
    ) -> tuple[Mapping[str, Passage], int]:
        """`_forward`, with all tokens, without gates, and on every rank the same."""
        items = [in_full(item) for item in items]
        pack = self.layouts.pack(items)
        predictions = pack.split(forward(model, self.layouts.inputs(items, pack), pack, self.run))
        passages = passages_of(items)
        for one in passages:
            one.predictions = predictions[one.places.start : one.places.stop]
        return {one.item.sample: one for one in passages}, pack.image.num_rows

    def _forward(
        self, items: Sequence[DenoiseItem], ranks: Ranks
    ) -> tuple[Mapping[str, Passage], int]:
        """One evaluation of the model for items that compute, by sample, and the rows that went
        through all of it.
        """
        model = self.pipeline.denoiser
        grids, gates = self.layouts.grids(items), any(map(has_gate, items))
        own = ranks.own(items)
        items = mosaic.settled(items, own, grids, self.run, ranks.group, ranks.least)
        own, pack = ranks.own(items), self.layouts.taken(items)
        passages = passages_of(own)
        if not any(item.computed for item in own):
            self.gates.agree(passages)
            ranks.join(items, passages, pack, gates=gates)
            return {passage.item.sample: passage for passage in passages}, 0
        mine = pack if own == items else self.layouts.taken(own)
        part = ranks.part(mine)
        inputs = ranks.taken(self.layouts.inputs(own, self.layouts.pack(own)), part)
        with mosaic.keeping(self.run, mine, own):
            if gates:
                rows = self.gates.forward(passages, inputs, part, self._part)
            else:
                rows = part.image.num_rows
                predictions = part.split(forward(model, inputs, part, ranks.run))
                for passage in passages:
                    passage.predictions = predictions[passage.places.start : passage.places.stop]
            ranks.join(items, passages, pack, gates=gates)
        return {passage.item.sample: passage for passage in passages}, rows * ranks.group.size

    def _preview(self, clean: Mapping[str, Tensor]) -> Mapping[str, Outcome]:
        """Data predictions as tokens, by sample -> pictures, or why there are none. The first call
        fits the map.
        """
        if not clean:
            return {}
        try:
            if self._latent_preview is None:
                self._latent_preview = LatentPreview.fit(self.pipeline.vae)
            latents = [self.pipeline.still(x, self._slots[name].grid) for name, x in clean.items()]
            pictures = self._latent_preview.show(latents)
        except Exception as error:
            # The others of the pack asked for no preview, and go on.
            log.exception("previews of %s failed", list(clean))
            return dict.fromkeys(clean, Outcome(error=ExecutionFailed(f"preview failed: {error}")))
        return {name: Outcome(picture=p) for name, p in zip(clean, pictures, strict=True)}

    def _start(self, item: DenoiseItem) -> None:
        """The noise of a seed is drawn on the host, so that it is the same on every device."""
        shape = self.pipeline.latent_shape(item.size, item.frames)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(item.seed))
        self.put_latent(item.sample, noise * initial_scale(self._schedule(item.path)))

    def _part(self, items: Sequence[DenoiseItem]) -> Pack:
        """What of it this rank computes."""
        return self.ranks.part(self.layouts.taken(items))

    def _decode(self, item: DecodeItem) -> Outcome:
        slot = self._slots[item.sample]
        x = self._decoding.advance(item, self.latent(item.sample), slot.decoded)
        if item.last is not None:
            slot.decoded = x
            return Outcome()
        self._drop(item.sample)
        if self.ranks.group.rank:
            return Outcome()
        assert isinstance(x, Tensor)
        if not bool(x.isfinite().all()):
            return Outcome(error=NonFinite("the decoded picture is not finite"))
        return Outcome(picture=self.pipeline.picture(x, item.frames))


def _pages_of(sample: str) -> list[Hashable]:
    """All owners of pages that a sample may have."""
    return [*gate.pages_of(sample), *mosaic.pages_of(sample)]
