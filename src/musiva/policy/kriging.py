"""The calibrated forecast: the best linear guess of a data prediction from those that are known.

Over the path from noise to picture, a model's latents x and data predictions v covary in a way that
is the model's own and hardly the prompt's. Measured once, at places s, it gives in closed form the
weights with which a prediction at any place follows best from those at any others, however uneven
the gaps (kriging: Matheron 1963; a solver of any order is a special case, with weights of its own
instead of measured ones):

    v(s) ~ w . r,   r = (x(a), v(a), v(p)),   w = E[r r']^-1 E[r v(s)]

with a the place computed last and p the one before, for every band of spatial frequency on its own.

Dense runs do not show that a run with forecasts strays from them. So a correction, small and smooth
in the place, is fitted to runs with forecasts, against the dense run's latents: with d = s(a) - s,

    v(s) += sum_r (c_r0 d + c_r1 d s(a) + c_r2 d s(a)^2) r,
    r = (x(a), v(a), (v(a) - v(p)) / (p - a))

B bands, R values, P places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from musiva.core.pack import Grid
from musiva.policy.bands import Bands, bands_of
from musiva.policy.calibration import Calibration

if TYPE_CHECKING:
    from musiva.policy.forecast import Anchors

__all__ = ["Kriging", "shape_of_correction", "shape_of_surprise"]

# Of the moments' own size, added to their diagonal: values that nearly coincide get weights that
# do not cancel. 1e-4 to 1e-3 measured alike, 1e-2 worse.
RIDGE = 1e-3
REMEMBERED = 4096


class Kriging:
    """Forecasts of one model. Weights are worked out on the host and remembered by places."""

    def __init__(self, calibration: Calibration, patch: Grid) -> None:
        self.calibration = calibration
        self.patch = patch
        self._moments_BNN = calibration.moments.double()
        self._correction_BRF = calibration.correction.double()
        self._weights = lru_cache(maxsize=REMEMBERED)(self._solve)
        self._usual_errors = lru_cache(maxsize=REMEMBERED)(self._usual_error)
        self._row = lru_cache(maxsize=REMEMBERED)(self._picked)

    def bands(self, grid: Grid, device: torch.device) -> Bands:
        return bands_of(grid, self.patch, self.calibration.edges, device)

    def estimate(self, anchors: Anchors, place: float, grid: Grid) -> Tensor:
        """[L, C]: the data prediction at a place, from the newest one or two anchors."""
        bands = self.bands(grid, anchors.values[0].device)
        return bands.synthesise(self._combined(anchors, place, bands, anchors.spectra(bands)))[0]

    def miss(
        self, anchors: Anchors, place: float, grid: Grid, clean_LC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a data prediction has that the estimate has not, and all that it has: two spectra,
        of which a sum of squares is what it is of tokens.
        """
        bands = self.bands(grid, clean_LC.device)
        spectrum, *known = anchors.spectra(bands, clean_LC)
        return spectrum - self._combined(anchors, place, bands, known), spectrum

    def _combined(
        self, anchors: Anchors, place: float, bands: Bands, spectra: Sequence[Tensor]
    ) -> Tensor:
        weights_BR = self.weights(anchors.places[:2], (place,))[0].to(spectra[0])
        return bands.combine(spectra[:3], weights_BR)

    def weights(self, computed: Sequence[float], places: Sequence[float]) -> Tensor:
        """[P, B, 1 + n] float64, for each of P places those of the latent at the newest of the
        `n` (1 or 2) places that were computed, and of the data predictions there, newest first.
        """
        return self._weights(tuple(computed), tuple(places))

    def usual_error(self, computed: Sequence[float], place: float) -> float:
        """The root mean square by which a forecast is usually wrong."""
        return self._usual_errors(computed[0], place)

    def _usual_error(self, newest: float, place: float) -> float:
        time = self.calibration.time
        shape = shape_of_surprise(time(newest), time(place))
        return math.exp(
            0.5 * sum(c * f for c, f in zip(self.calibration.surprise, shape, strict=True))
        )

    def _solve(self, computed: tuple[float, ...], places: tuple[float, ...]) -> Tensor:
        rows = [self._row(computed[0], True), *(self._row(p, False) for p in computed)]
        known, known_RN = len(rows), torch.stack(rows)
        wanted_PN = torch.stack([self._row(p, False) for p in places])
        moments_BRN = known_RN @ self._moments_BNN
        known_BRR = moments_BRN @ known_RN.T
        ridge_BRR = torch.diag_embed(RIDGE * known_BRR.diagonal(dim1=1, dim2=2))
        weights_BRP = torch.linalg.solve(known_BRR + ridge_BRR, moments_BRN @ wanted_PN.T)
        wanted_P = torch.tensor(places, dtype=torch.float64)
        extra_BRP = self._correction_BRF @ shape_of_correction(computed[0], wanted_P)
        weights_BRP[:, :2] += extra_BRP[:, :2]
        if known > 2:
            slope_BP = extra_BRP[:, 2] / (computed[1] - computed[0])
            weights_BRP[:, 1] += slope_BP
            weights_BRP[:, 2] -= slope_BP
        return weights_BRP.permute(2, 0, 1)

    def _picked(self, place: float, latent: bool) -> Tensor:
        """[2P]: what picks a latent, or a data prediction, out of the moments; between measured
        places both neighbours count.
        """
        places = self.calibration.places
        at = float(np.interp(-place, [-p for p in places], np.arange(len(places))))
        low = min(int(at), len(places) - 2)
        row_N = torch.zeros(2 * len(places), dtype=torch.float64)
        first = low if latent else low + len(places)
        row_N[first], row_N[first + 1] = 1 - (at - low), at - low
        return row_N


def shape_of_correction(newest: float, places_P: Tensor) -> Tensor:
    """[3, P] float64: what the coefficients of the correction are multiplied with."""
    gone_P = newest - places_P
    return torch.stack((gone_P, gone_P * newest, gone_P * newest**2))


def shape_of_surprise(newest: float, time: float) -> tuple[float, ...]:
    """What the coefficients of the logarithm of the usual square error are multiplied with; both
    are times.
    """
    return (1.0, math.log(max(time - newest, 1e-3)), time, time * time)
