"""What forecasts start from, and the forecast that needs no calibration: a polynomial.

L tokens of a sample, C channels of a token. Only elementwise products and sums are used, one
operation each, so that a sample's bytes never depend on what is computed beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from musiva.policy.bands import Bands

__all__ = ["Anchors", "polynomial_weights"]


@dataclass(frozen=True, slots=True)
class Anchors:
    """The data predictions of a sample that were computed last, newest first, and the place on the
    path of each; and the latent that the newest was computed from.
    """

    values: tuple[Tensor, ...] = ()
    places: tuple[float, ...] = ()
    latent: Tensor | None = None
    # Of the latent, and of each value; those that were wanted before.
    _spectra: dict[int, Tensor] = field(default_factory=dict, compare=False)

    def add(
        self,
        value_LC: Tensor,
        place: float,
        keep: int,
        latent_LC: Tensor | None = None,
        spectrum: Tensor | None = None,
    ) -> Anchors:
        """With one more, whose spectrum may be known; the newest `keep` stay. A second value at a
        place (Heun evaluates most places twice) takes the first one's.
        """
        older = 1 if self.places and place == self.places[0] else 0
        values = (value_LC, *self.values[older:])[:keep]
        spectra = {} if spectrum is None else {1: spectrum}
        for i, known in self._spectra.items():
            if i > older and (at := i + 1 - older) <= len(values):
                spectra[at] = known
        return Anchors(values, (place, *self.places[older:])[:keep], latent_LC, spectra)

    def newest(self, count: int) -> Anchors:
        """Only the newest `count` values."""
        spectra = {i: known for i, known in self._spectra.items() if i <= count}
        return Anchors(self.values[:count], self.places[:count], self.latent, spectra)

    def mapped(self, fn: Callable[[Tensor], Tensor]) -> Anchors:
        """Of fn of each field, and of what was worked out of it."""
        return Anchors(
            tuple(map(fn, self.values)),
            self.places,
            None if self.latent is None else fn(self.latent),
            {i: fn(known) for i, known in self._spectra.items()},
        )

    def spectra(self, bands: Bands, *others: Tensor) -> list[Tensor]:
        """Of the latent, and of the data predictions, newest first, each worked out once; and
        before them, those of other fields.
        """
        assert self.latent is not None
        fields = (self.latent, *self.values)
        unknown = [i for i in range(len(fields)) if i not in self._spectra]
        wanted = (*others, *(fields[i] for i in unknown))
        found = bands.analyse(*wanted) if wanted else []
        self._spectra.update(zip(unknown, found[len(others) :], strict=True))
        return [*found[: len(others)], *(self._spectra[i] for i in range(len(fields)))]

    def forecast(self, place: float, order: int) -> Tensor:
        """[L, C] at a place, by the newest `order` + 1 values, or as many as there are. Needs
        one.
        """
        weights = polynomial_weights(self.places[: order + 1], place).tolist()
        value_LC = weights[0] * self.values[0]
        for weight, older_LC in zip(weights[1:], self.values[1:], strict=False):
            value_LC = value_LC + weight * older_LC
        return value_LC


def polynomial_weights(computed: Sequence[float], place: float) -> Tensor:
    """[n] float64: how much of the value at each of n places is in the polynomial through all of
    them, at another place (Lagrange, so gaps need not be even). One value is held.
    """
    weights = []
    for i, at in enumerate(computed):
        others = (other for j, other in enumerate(computed) if j != i)
        weights.append(math.prod((place - other) / (at - other) for other in others))
    return torch.tensor(weights, dtype=torch.float64)
