"""What forecasts start from, and the forecast that needs no calibration: a polynomial.

L tokens of a sample, C channels of a token. Only elementwise products and sums are used, one
operation each, so that a sample's bytes never depend on what is computed beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from musiva.policy.bands import Bands

__all__ = ["Anchors"]


@dataclass(frozen=True, slots=True)
class Anchors:
    """The data predictions of a sample that were computed last, newest first, and the place on the
    path of each; and the latent that the newest was computed from.
    """

    values: tuple[Tensor, ...] = ()
    places: tuple[float, ...] = ()
    latent: Tensor | None = None
    _spectra: list[Tensor] = field(default_factory=list, compare=False)

    def add(
        self, value_LC: Tensor, place: float, keep: int, latent_LC: Tensor | None = None
    ) -> Anchors:
        """With one more; the newest `keep` stay. A second value at a place (Heun evaluates most
        places twice) takes the first one's.
        """
        older = 1 if self.places and place == self.places[0] else 0
        return Anchors(
            (value_LC, *self.values[older:])[:keep],
            (place, *self.places[older:])[:keep],
            latent_LC,
        )

    def spectra(self, bands: Bands) -> list[Tensor]:
        """Of the latent, and of the newest two data predictions; worked out once."""
        if not self._spectra:
            assert self.latent is not None
            fields = (self.latent, *self.values[:2])
            self._spectra.extend(bands.analyse(x_LC) for x_LC in fields)
        return self._spectra

    def forecast(self, place: float, order: int) -> Tensor:
        """[L, C] at a place: Newton's polynomial through the newest `order` + 1 values, or through
        as many as there are (divided differences, so gaps need not be even). Needs one value.
        """
        places = self.places[: order + 1]
        table = list(self.values[: order + 1])
        value_LC, factor = table[0], 1.0
        for level in range(1, len(places)):
            table = [
                (newer - older) * (1 / (places[i] - places[i + level]))
                for i, (newer, older) in enumerate(pairwise(table))
            ]
            factor *= place - places[level - 1]
            value_LC = value_LC + table[0] * factor
        return value_LC
