"""The evaluations between two that are computed, taken in one.

Forecasts are sums of a few known fields, and a solver is linear in them; so are the latent and the
solver's memory at the end of a gap, however many evaluations it has. Their coefficients are worked
out on the host, once for all samples with the same gap, and the fields are touched once.

L tokens of a sample, C channels of a token; B bands of frequency, one where no forecast is
calibrated; N known fields, of which M are the latent and the solver's memory at the start of a gap
and R what forecasts are made of; P evaluations of a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from musiva.core.pack import Grid
from musiva.core.types import Action
from musiva.policy import Anchors, Kriging, polynomial_weights
from musiva.samplers import Memory, Schedule, leap

__all__ = ["Gaps", "Landing"]

REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Landing:
    """After a gap: the latent, the solver's memory, and the data prediction that the last of its
    evaluations was taken with, if it was asked for.
    """

    latent: Tensor
    memory: Memory
    clean: Tensor | None


@dataclass(frozen=True, slots=True)
class Sums:
    """[B, N] coefficients, over the latent at the start, the memory there, the latent that the
    newest anchor was computed from, and the values of the anchors.
    """

    latent: Tensor
    memory: tuple[Tensor, ...]
    clean: Tensor


class Gaps:
    """Gaps of one model. Raises ValueError for a schedule that clips."""

    def __init__(self, kriging: Kriging | None) -> None:
        self._kriging = kriging
        self._sums = lru_cache(maxsize=REMEMBERED)(self._work_out)
        self._shares = lru_cache(maxsize=REMEMBERED)(_shares)

    def cross(
        self,
        schedule: Schedule,
        evaluation: int,
        actions: Sequence[Action],
        latent_LC: Tensor,
        memory: Memory,
        anchors: Anchors,
        grid: Grid,
        *,
        show: bool = True,
    ) -> Landing:
        """Take `actions`, of which none computes, from `evaluation` on. show: `clean` is wanted."""
        sums = self._sums(schedule, evaluation, tuple(actions), anchors.places, len(memory))
        if any(action.calibrated for action in actions):
            assert self._kriging is not None
            bands = self._kriging.bands(grid, latent_LC.device)
            fields = anchors.spectra(bands, latent_LC, *memory)

            def totals(*sums: Tensor) -> list[Tensor]:
                spectra = [bands.combine(fields, weights_BN.to(latent_LC)) for weights_BN in sums]
                return bands.synthesise(*spectra)
        else:
            assert anchors.latent is not None
            fields = [latent_LC, *memory, anchors.latent, *anchors.values]

            def totals(*sums: Tensor) -> list[Tensor]:
                return [_total(fields, weights_BN[0].tolist()) for weights_BN in sums]

        # What is shown is summed apart, so that the others' bytes do not depend on it.
        clean_LC = totals(sums.clean)[0] if show else None
        landed_LC, *kept = totals(sums.latent, *sums.memory)
        return Landing(landed_LC, tuple(kept), clean_LC)

    def _work_out(
        self,
        schedule: Schedule,
        evaluation: int,
        actions: tuple[Action, ...],
        computed: tuple[float, ...],
        num_memory: int,
    ) -> Sums:
        cleans_PBR = self._forecasts(schedule, evaluation, actions, computed)
        shares = self._shares(schedule, evaluation, len(actions), num_memory)
        starts_MM, forecasts_MP = shares.split((1 + num_memory, len(actions)), dim=1)
        num_bands = cleans_PBR.shape[1]
        starts_MBM = starts_MM[:, None].expand(-1, num_bands, -1)
        forecasts_MBR = torch.einsum("mp,pbr->mbr", forecasts_MP, cleans_PBR)
        latent_BN, *memory = torch.cat((starts_MBM, forecasts_MBR), -1)
        last_BN = torch.nn.functional.pad(cleans_PBR[-1], (1 + num_memory, 0))
        return Sums(latent_BN, tuple(memory), last_BN)

    def _forecasts(
        self,
        schedule: Schedule,
        evaluation: int,
        actions: tuple[Action, ...],
        computed: tuple[float, ...],
    ) -> Tensor:
        """[P, B, 1 + n] float64: each evaluation's data prediction, over the latent of the newest
        anchor and `n` values.
        """
        rows: list[Tensor] = []
        for action, alike in groupby(enumerate(actions, evaluation), key=itemgetter(1)):
            run = [at for at, _ in alike]
            values = computed[: action.order + 1]
            if action.calibrated:
                assert self._kriging is not None
                # Of all that may follow, so that gaps of every length find the same.
                later = [schedule.place(at) for at in range(run[0], schedule.num_evaluations)]
                weights_PBR = self._kriging.weights(values, later)[: len(run)]
            else:
                places = map(schedule.place, run)
                weights_PR = torch.stack([polynomial_weights(values, p) for p in places])
                weights_PBR = torch.nn.functional.pad(weights_PR, (1, 0))[:, None]
            rows.extend(torch.nn.functional.pad(weights_PBR, (0, len(computed) - len(values))))
        return torch.stack(torch.broadcast_tensors(*rows))


def _shares(schedule: Schedule, evaluation: int, count: int, num_memory: int) -> Tensor:
    """[M, M + P] float64: how much of the latent and the memory at the start, and of the data
    prediction of each of `count` evaluations, is in the latent and the memory at the end, of which
    there may be less.
    """
    own = 1 + num_memory
    x, *rest = torch.eye(own + count, dtype=torch.float64)
    end, memory = leap(schedule, evaluation, x, tuple(rest[:num_memory]), rest[num_memory:])
    return torch.stack((end, *memory))


def _total(fields: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """One operation each, so that a sample's bytes never depend on what is computed beside it."""
    total = weights[0] * fields[0]
    for weight, x_LC in zip(weights[1:], fields[1:], strict=True):
        if weight:
            total = total + weight * x_LC
    return total
