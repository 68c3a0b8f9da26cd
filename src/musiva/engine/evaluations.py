"""Evaluations as samples take them: those that the model skips, and those that it computed.

L tokens of a sample, A of them that were computed, C channels of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from musiva.core.types import Action, DenoiseItem, Path
from musiva.engine import mosaic
from musiva.engine.coarse import doubled
from musiva.engine.gap import Gaps
from musiva.engine.layouts import Layouts
from musiva.engine.measured import Computed, Measurements
from musiva.engine.pipeline import Pipeline
from musiva.engine.slot import Slot
from musiva.samplers import Schedule, predicted_clean, prediction_from_clean

__all__ = ["Evaluations"]


class Evaluations:
    """Over the slots of an executor: forecasts, guidance, solvers, and what policies measure."""

    def __init__(
        self,
        pipeline: Pipeline,
        slots: Mapping[str, Slot],
        layouts: Layouts,
        schedule: Callable[[Path], Schedule],
    ) -> None:
        self._pipeline, self._slots, self._layouts = pipeline, slots, layouts
        self._schedule = schedule
        self._kriging = pipeline.kriging
        self._gaps = Gaps(self._kriging)

    def skip(self, item: DenoiseItem) -> Tensor | None:
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

    def take(
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
            return self._pipeline.guided(conditional_LC, conditional_LC + away_LC, item.guidance)
        if item.coarse(1):
            other = [self._refined(item, other[0])]
        if item.keep:
            slot.away = slot.away.add(other[0] - conditional_LC, place, item.keep)
        return self._pipeline.guided(conditional_LC, other[0], item.guidance)

    def _refined(self, item: DenoiseItem, prediction_LC: Tensor) -> Tensor:
        """On the grid of the sample, the prediction that a branch made on a coarser one."""
        slot, schedule = self._slots[item.sample], self._schedule(item.path)
        latent_LC = self._layouts.latent(item, 1)
        small_LC = predicted_clean(schedule, item.last, latent_LC, prediction_LC)
        clean_LC = doubled(small_LC, slot.grid, self._pipeline.denoiser.patch)
        return prediction_from_clean(schedule, item.last, slot.latent_LC, clean_LC)
