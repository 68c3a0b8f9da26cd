"""Forecasts: what stands in for a data prediction that the model did not compute.

L tokens of a sample, C channels of a token. Only elementwise products and sums are used, one
operation each, so that a sample's bytes never depend on what is computed beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

__all__ = ["Anchors"]


@dataclass(frozen=True, slots=True)
class Anchors:
    """The data predictions of a sample that were computed last, newest first, and the place on the
    path of each.
    """

    values: tuple[Tensor, ...] = ()
    places: tuple[float, ...] = ()

    def add(self, value_LC: Tensor, place: float, keep: int) -> Anchors:
        """With one more; the newest `keep` stay. A second value at a place (Heun evaluates most
        places twice) takes the first one's.
        """
        if self.places and place == self.places[0]:
            return Anchors((value_LC, *self.values[1:]), self.places)
        return Anchors((value_LC, *self.values)[:keep], (place, *self.places)[:keep])

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
