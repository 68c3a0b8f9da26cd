"""What an executor measures for policies: gathered on the device, read in one transfer.

L tokens of a sample, A of them that were computed, C channels of a token; N tiles of at most M
tokens, of which K were computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from musiva.core.pack import Grid
from musiva.core.tiling import tile_members
from musiva.core.types import DenoiseItem, TileValues
from musiva.policy import Anchors, Kriging

__all__ = ["Computed", "Measurements"]


@dataclass(slots=True)
class Computed:
    """One evaluation as the model computed it, before it becomes an anchor. clean_LC: the data
    prediction. prediction_LC: what the model says, after guidance. forecast_LC: what would have
    stood in for the data prediction, where that is known. tokens_A: on the host, those that were
    computed, None for all; what the others have means nothing. spectrum: of the data prediction,
    once a probe wanted it.
    """

    clean_LC: Tensor
    prediction_LC: Tensor
    forecast_LC: Tensor | None
    place: float
    grid: Grid
    tokens_A: Tensor | None = None
    spectrum: Tensor | None = None


class Measurements:
    """Numbers on the device, by sample and name: one, or one for each tile."""

    def __init__(self, kriging: Kriging | None = None) -> None:
        self._kriging = kriging
        self._names: list[tuple[str, str, tuple[bool, ...] | None]] = []
        self._values: list[Tensor] = []

    def add(self, sample: str, name: str, value: Tensor) -> None:
        """One number."""
        self._names.append((sample, name, None))
        self._values.append(value.float()[None])

    def measure(self, item: DenoiseItem, probe: str, done: Computed, anchors: Anchors) -> None:
        """Take one of `musiva.policy.PROBES`, over the tokens that were computed, or of its
        `TILE_PROBES`; nothing where there is nothing to compare with.
        """
        clean_LC = done.clean_LC
        if probe == "scale":
            self._add_rms(item, probe, clean_LC, done)
        elif probe == "change" and anchors.values:
            self._add_rms(item, probe, clean_LC - anchors.values[0], done)
        elif probe == "forecast_error" and len(anchors.values) > 1:
            wrong_LC = clean_LC - anchors.forecast(done.place, item.keep - 1)
            self._add_rms(item, probe, wrong_LC, done)
        elif probe == "surprise" and self._kriging is not None and anchors.values:
            kriging, place, grid = self._kriging, done.place, done.grid
            wrong, done.spectrum = kriging.miss(anchors, place, grid, clean_LC)
            if done.tokens_A is not None:
                (wrong,) = kriging.bands(grid, wrong.device).synthesise(wrong)
            self._add_rms(item, probe, wrong, done, kriging.usual_error(anchors.places, place))
        elif probe == "tile_variation":
            self._add_tiles(item, probe, done.prediction_LC, done, centred=True)
        elif probe == "tile_change" and anchors.values:
            self._add_tiles(item, probe, clean_LC - anchors.values[0], done)
        elif probe == "tile_error" and done.forecast_LC is not None:
            self._add_tiles(item, probe, clean_LC - done.forecast_LC, done)

    def read(self) -> dict[str, dict[str, float | TileValues]]:
        """All of it, by sample; empties this."""
        values = iter(torch.cat(self._values).tolist() if self._values else [])
        found: dict[str, dict[str, float | TileValues]] = {}
        for sample, name, tiles in self._names:
            if tiles is None:
                found.setdefault(sample, {})[name] = next(values)
            else:
                every = tuple(next(values) if computed else None for computed in tiles)
                found.setdefault(sample, {})[name] = every
        self._names, self._values = [], []
        return found

    def _add_rms(
        self, item: DenoiseItem, probe: str, x: Tensor, done: Computed, over: float = 1.0
    ) -> None:
        """x: [L, C], or a spectrum where all tokens were computed."""
        if done.tokens_A is not None:
            x = x[done.tokens_A.to(x.device)]
        self.add(item.sample, probe, x.square().mean().sqrt() / over)

    def _add_tiles(
        self, item: DenoiseItem, probe: str, x_LC: Tensor, done: Computed, *, centred: bool = False
    ) -> None:
        """The root mean square over each tile that was computed; around its mean, if `centred`."""
        assert item.tile is not None
        members_NM = tile_members(done.grid, item.tile)
        tiles = item.actions[-1].tiles or (True,) * len(members_NM)
        members_KM = members_NM[torch.tensor(tiles)].to(x_LC.device)
        is_token_KM1 = (members_KM >= 0)[..., None]
        # Sums of a fixed order, which adding up by index has not on every device.
        x_KMC = x_LC[members_KM.clamp(min=0)] * is_token_KM1
        count_K = is_token_KM1.sum((1, 2)) * x_LC.shape[1]
        if centred:
            mean_K = x_KMC.sum((1, 2)) / count_K
            x_KMC = (x_KMC - mean_K[:, None, None]) * is_token_KM1
        value_K = (x_KMC.square().sum((1, 2)) / count_K).sqrt()
        self._names.append((item.sample, probe, tiles))
        self._values.append(value_K.float())
