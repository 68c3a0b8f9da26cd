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

import torch
from torch import Tensor

from musiva.comm import Group, Lone
from musiva.core.errors import ExecutionFailed, InvalidInput, MusivaError, NonFinite, RankLost
from musiva.core.pack import Pack
from musiva.core.types import (
    Action,
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
from musiva.engine.coarse import doubled
from musiva.engine.gap import Gaps
from musiva.engine.gate import Gates, Passage, has_gate, passages_of
from musiva.engine.layouts import Layouts
from musiva.engine.measured import Computed, Measurements
from musiva.engine.paged import PagedRun
from musiva.engine.pipeline import Pipeline
from musiva.engine.preview import LatentPreview
from musiva.engine.ranks import Ranks
from musiva.engine.runner import forward
from musiva.engine.slot import Checkpoint, Slot, is_whole
from musiva.models import Denoiser
from musiva.models.text import Words
from musiva.parallel import Form
from musiva.samplers import (
    Schedule,
    initial_scale,
    predicted_clean,
    prediction_from_clean,
)
from musiva.store import Figures, Store

__all__ = ["STORE_BYTES", "InlineExecutor"]

log = logging.getLogger(__name__)
STORE_BYTES = 256 << 20


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
    ) -> None:
        """group: of ranks that run the same plans, each with an executor of its own; form: how they
        share them. Raises InvalidInput for store_bytes below 1.
        """
        if store_bytes < 1:
            raise InvalidInput("store_bytes", store_bytes, "a whole number of at least 1")
        self.pipeline = pipeline
        self.store = Store.Config(budget_bytes=store_bytes, device=pipeline.device).build()
        # Where no sample of a pack has tiles it is a plain run.
        self.run = PagedRun(self.store, pipeline.linears)
        self.ranks = Ranks(pipeline.denoiser, self.run, group or Lone(), form)
        self.gates = Gates(pipeline.denoiser, self.ranks.run, self.store, self.ranks.group)
        self.store_figures: Figures = self.store.figures()
        self._slots: dict[str, Slot] = {}
        self._checkpoints: dict[str, Checkpoint] = {}
        self._texts: dict[Prompt, Words] = {}
        self._latent_preview: LatentPreview | None = None
        self._kriging = pipeline.kriging
        self._gaps = Gaps(self._kriging)
        self._schedule: Callable[[Path], Schedule] = lru_cache(maxsize=256)(pipeline.schedule)
        self.layouts = Layouts(pipeline, self._slots, self._texts, self._schedule)

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
        self._slots[sample] = checkpoint.to(self.pipeline.device).slot

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
            self._forecast(replace(item, actions=item.actions[:end], preview=False))
            found.append(self.latent(item.sample))
            self._slots[item.sample] = slot
        return found

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepResult:
        start, rows = time.perf_counter(), 0
        for sample in plan.release:
            self._drop(sample)
        for prompt in plan.drop_texts:
            self._texts.pop(prompt, None)
        try:
            if not plan.items:
                outcomes = []  # a plan that only frees slots
            elif plan.kind is Kind.ENCODE:
                outcomes = self._encode([i for i in plan.items if isinstance(i, EncodeItem)])
            elif plan.kind is Kind.DENOISE:
                outcomes, rows = self._denoise(
                    [i for i in plan.items if isinstance(i, DenoiseItem)]
                )
            else:
                outcomes = [self._decode(i) for i in plan.items if isinstance(i, DecodeItem)]
        except RankLost:
            # Nobody of the group can go on; what it had goes on elsewhere.
            raise
        except Exception as error:
            if self.ranks.group.size > 1 and plan.kind is Kind.DENOISE:
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
        return StepResult(plan.number, tuple(outcomes), time.perf_counter() - start, rows)

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
        self._free(sample)

    def _free(self, sample: str) -> None:
        """Let go of all pages of a sample."""
        for owner in _pages_of(sample):
            self.store.free(owner)

    def _encode(self, items: Sequence[EncodeItem]) -> list[Outcome]:
        encoded = self.pipeline.text.words([item.prompt for item in items])
        for item, words in zip(items, encoded, strict=True):
            self._texts[item.prompt] = words
        return [Outcome() for _ in items]

    def _denoise(self, items: Sequence[DenoiseItem]) -> tuple[list[Outcome], int]:
        for item in items:
            if item.fresh and item.evaluation == 0 and item.sample not in self._slots:
                self._start(item)
        before = {item.sample: self._slots[item.sample].copy() for item in items}
        clean = {item.sample: self._forecast(item) for item in items}
        computed, rows = [item for item in items if item.computes], 0
        told = Measurements(self._kriging)
        passages: Mapping[str, Passage] = {}
        if computed:
            passages, rows = self._evaluate(computed)
            for passage in passages.values():
                if passage.error is None:
                    predictions = [
                        self.pipeline.clean_channels(x_LC).float() for x_LC in passage.predictions
                    ]
                    clean[passage.item.sample] = self._advance(passage.item, predictions, told)
        # One transfer tells of all samples whether they are still numbers, and what was measured.
        for item in items:
            told.add(item.sample, "finite", self._slots[item.sample].latent_LC.isfinite().all())
        measured = told.read()
        previews = self._preview(
            {
                i.sample: x
                for i in items
                if i.preview and not self.ranks.group.rank and (x := clean[i.sample]) is not None
            }
        )
        outcomes = []
        for item in items:
            passage, found = passages.get(item.sample), measured[item.sample]
            error, action = (passage.error, passage.action) if passage else (None, None)
            if not found.pop("finite") and error is None:
                error = NonFinite(f"evaluation {item.last + 1}: the prediction is not finite")
            if error is not None:
                # What is not finite in them must not be read again.
                self._free(item.sample)
                outcomes.append(Outcome(error=error))
                continue
            if passage is not None and is_whole(passage.action):
                checkpoint = Checkpoint(item.evaluation, before[item.sample])
                self._checkpoints[item.sample] = checkpoint
            found |= passage.measured if passage else {}
            shown = previews.get(item.sample, Outcome())
            outcomes.append(replace(shown, measured=found, action=action))
        return outcomes, rows

    def _evaluate(self, items: Sequence[DenoiseItem]) -> tuple[Mapping[str, Passage], int]:
        """One evaluation of the model for items that compute, by sample, and the rows that went
        through all of it. Those of which it refuses a branch run apart.
        """
        model, found = self.pipeline.denoiser, []
        others, apart = divided(items, model.refused(self.layouts.pack(items)))
        if apart:
            found.append(self._forward_whole(apart, model.apart))
        if others:
            others, small = divided(others, self.ranks.undivided(self.layouts.pack(others)))
            found += [self._forward(others)] if others else []
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

    def _forward(self, items: Sequence[DenoiseItem]) -> tuple[Mapping[str, Passage], int]:
        """One evaluation of the model for items that compute, by sample, and the rows that went
        through all of it.
        """
        ranks, model = self.ranks, self.pipeline.denoiser
        grids, gates = self.layouts.grids(items), any(map(has_gate, items))
        own = ranks.own(items)
        items = mosaic.settled(items, own, grids, self.run, ranks.group, ranks.least)
        own, pack = ranks.own(items), self.layouts.taken(items)
        passages = passages_of(own)
        if not any(item.computed for item in own):
            self.gates.agree(passages)
            ranks.join(items, passages, None, pack, gates=gates)
            return {passage.item.sample: passage for passage in passages}, 0
        mine = self.layouts.taken(own) if ranks.by_branch else pack
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
            ranks.join(items, passages, part, pack, gates=gates)
        return {passage.item.sample: passage for passage in passages}, rows * ranks.group.size

    def _forecast(self, item: DenoiseItem) -> Tensor | None:
        """Take the evaluations that the model skips; the last data prediction, if it is wanted."""
        slot, schedule, clean_LC = self._slots[item.sample], self._schedule(item.path), None
        actions = item.actions[:-1] if item.computes else item.actions
        if not actions:
            return None
        if schedule.clip is None:
            start = slot.latent_LC, slot.memory, slot.anchors, slot.grid
            show = item.preview and not item.computes
            landing = self._gaps.cross(schedule, item.evaluation, actions, *start, show=show)
            slot.latent_LC, slot.memory = landing.latent, landing.memory
            return landing.clean
        for evaluation, action in enumerate(actions, item.evaluation):
            clean_LC = self._estimate(slot, schedule.place(evaluation), action)
            prediction_LC = prediction_from_clean(schedule, evaluation, slot.latent_LC, clean_LC)
            slot.advance(schedule, evaluation, prediction_LC)
        return clean_LC

    def _estimate(self, slot: Slot, place: float, action: Action) -> Tensor:
        """What stands in for a data prediction."""
        if not action.calibrated:
            return slot.anchors.forecast(place, action.order)
        assert self._kriging is not None
        return self._kriging.estimate(slot.anchors.newest(action.order + 1), place, slot.grid)

    def _advance(
        self, item: DenoiseItem, predictions: Sequence[Tensor], told: Measurements
    ) -> Tensor | None:
        """Take the evaluation that the model computed, given what it said of each branch; the data
        prediction, if someone wants it.
        """
        slot, schedule, clean_LC = self._slots[item.sample], self._schedule(item.path), None
        action, place = item.actions[-1], schedule.place(item.last)
        tokens_A = mosaic.tokens_of(item, slot.grid)
        is_joined = tokens_A is not None or slot.since_L1 is not None
        prediction_LC = self._guided(item, self._spread(item, predictions, tokens_A))
        if item.preview or item.keep:
            clean_LC = predicted_clean(schedule, item.last, slot.latent_LC, prediction_LC)
        if clean_LC is not None and item.keep:
            forecast_LC = None
            if slot.anchors.values and (is_joined or "tile_error" in item.probes):
                forecast_LC = self._estimate(slot, place, action)
            done = Computed(clean_LC, prediction_LC, forecast_LC, place, slot.grid, tokens_A)
            for probe in item.probes:
                told.measure(item, probe, done, slot.anchors)
            if is_joined:
                assert forecast_LC is not None
                implied_LC = prediction_from_clean(schedule, item.last, slot.latent_LC, forecast_LC)
                prediction_LC = mosaic.merge(prediction_LC, implied_LC, tokens_A)
                slot.anchors, slot.since_L1, clean_LC = mosaic.join(
                    slot.anchors, slot.since_L1, clean_LC, forecast_LC, tokens_A, place
                )
            spectrum = None if is_joined else done.spectrum
            slot.anchors = slot.anchors.add(clean_LC, place, item.keep, slot.latent_LC, spectrum)
        slot.advance(schedule, item.last, prediction_LC)
        return clean_LC

    def _spread(
        self, item: DenoiseItem, predictions: Sequence[Tensor], tokens_A: Tensor | None
    ) -> Sequence[Tensor]:
        """[L, C] of each branch from [A, C]. Tokens that were not computed have the difference of
        the branches that is forecast; nothing else of them is used.
        """
        slot, place = self._slots[item.sample], self._schedule(item.path).place(item.last)
        if tokens_A is not None:
            blank_LC = torch.zeros_like(slot.latent_LC)
            predictions = [mosaic.spread(x_AC, tokens_A, blank_LC) for x_AC in predictions]
        if len(predictions) == 1 or (tokens_A is None and slot.away_since_L1 is None):
            return predictions
        conditional_LC, other_LC = predictions
        forecast_LC = slot.away.forecast(place, item.actions[-1].order)
        slot.away, slot.away_since_L1, away_LC = mosaic.join(
            slot.away, slot.away_since_L1, other_LC - conditional_LC, forecast_LC, tokens_A, place
        )
        return conditional_LC, mosaic.merge(other_LC, conditional_LC + away_LC, tokens_A)

    def _guided(self, item: DenoiseItem, predictions: Sequence[Tensor]) -> Tensor:
        """One prediction of both branches, the second of which may be borrowed."""
        if len(item.prompts) == 1:
            return predictions[0]
        slot, place = self._slots[item.sample], self._schedule(item.path).place(item.last)
        conditional_LC, *other = predictions
        if not other:
            away_LC = slot.away.forecast(place, item.actions[-1].order)
            return self.pipeline.guided(conditional_LC, conditional_LC + away_LC, item.guidance)
        if item.coarse(1):
            other = [self._refined(item, other[0])]
        if item.keep:
            slot.away = slot.away.add(other[0] - conditional_LC, place, item.keep)
        return self.pipeline.guided(conditional_LC, other[0], item.guidance)

    def _refined(self, item: DenoiseItem, prediction_LC: Tensor) -> Tensor:
        """On the grid of the sample, the prediction that a branch made on a coarser one."""
        slot, schedule = self._slots[item.sample], self._schedule(item.path)
        small_LC = predicted_clean(schedule, item.last, self.layouts.latent(item, 1), prediction_LC)
        clean_LC = doubled(small_LC, slot.grid, self.pipeline.denoiser.patch)
        return prediction_from_clean(schedule, item.last, slot.latent_LC, clean_LC)

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
        if self.ranks.group.rank:
            # The first rank alone decodes.
            if item.last is None:
                self._drop(item.sample)
            return Outcome()
        x = self.latent(item.sample) if slot.decoded is None else slot.decoded
        for part in self.pipeline.decode_parts(item.frames)[item.first : item.last]:
            x = part(x)
        if item.last is not None:
            slot.decoded = x
            return Outcome()
        assert isinstance(x, Tensor)
        self._drop(item.sample)
        if not bool(x.isfinite().all()):
            return Outcome(error=NonFinite("the decoded picture is not finite"))
        return Outcome(picture=self.pipeline.picture(x, item.frames))


def _pages_of(sample: str) -> list[Hashable]:
    """All owners of pages that a sample may have."""
    return [*gate.pages_of(sample), *mosaic.pages_of(sample)]
