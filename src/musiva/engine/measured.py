"""What an executor measures for policies: gathered on the device, read in one transfer."""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.core.pack import Grid
from musiva.core.types import DenoiseItem
from musiva.policy import Anchors, Kriging

__all__ = ["Measurements"]


class Measurements:
    """Scalars on the device, by sample and name. L tokens of a sample, C channels of a token."""

    def __init__(self, kriging: Kriging | None = None) -> None:
        self._kriging = kriging
        self._names: list[tuple[str, str]] = []
        self._values: list[Tensor] = []

    def add(self, sample: str, name: str, value: Tensor) -> None:
        self._names.append((sample, name))
        self._values.append(value.float())

    def measure(
        self,
        item: DenoiseItem,
        probe: str,
        clean_LC: Tensor,
        place: float,
        anchors: Anchors,
        grid: Grid,
    ) -> None:
        """Take one of `musiva.policy.PROBES` of a computed data prediction, before it becomes an
        anchor; nothing where there is nothing to compare it with.
        """
        if probe == "scale":
            self.add(item.sample, probe, _rms(clean_LC))
        elif probe == "change" and anchors.values:
            self.add(item.sample, probe, _rms(clean_LC - anchors.values[0]))
        elif probe == "forecast_error" and len(anchors.values) > 1:
            order = item.keep - 1
            self.add(item.sample, probe, _rms(clean_LC - anchors.forecast(place, order)))
        elif probe == "surprise" and self._kriging is not None and anchors.values:
            wrong_LC = clean_LC - self._kriging.estimate(anchors, place, grid)
            usual = self._kriging.usual_error(anchors.places, place)
            self.add(item.sample, probe, _rms(wrong_LC) / usual)

    def read(self) -> dict[str, dict[str, float]]:
        """All of it, by sample; empties this."""
        values = torch.stack(self._values).tolist() if self._values else []
        found: dict[str, dict[str, float]] = {}
        for (sample, name), value in zip(self._names, values, strict=True):
            found.setdefault(sample, {})[name] = value
        self._names, self._values = [], []
        return found


def _rms(x_LC: Tensor) -> Tensor:
    return x_LC.square().mean().sqrt()
