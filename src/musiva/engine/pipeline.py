"""A model directory, loaded: text encoder, denoiser, autoencoder and noise model, with their
limits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.core.pack import Grid
from musiva.models import Denoiser, read_config
from musiva.models.text import Prompts, Words
from musiva.models.vae import Autoencoder
from musiva.ops.linear import Linears
from musiva.policy import Calibration, Kriging
from musiva.samplers import NoiseModel, Rule, guide

__all__ = ["Defaults", "Pipeline"]

DEFAULTS_FILE = "musiva.json"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a request gets that does not say, and what it may say; `musiva.json` beside
    model_index.json.

    size: (width, height) in pixels. min_side, max_side: in pixels.
    """

    size: tuple[int, int]
    steps: int = 20
    guidance: float = 4.5
    min_side: int
    max_side: int
    max_images: int = 16

    @classmethod
    def read(
        cls, directory: FilePath, native: int, unit: int, otherwise: Mapping[str, Any] = NOTHING
    ) -> Defaults:
        """From the directory's file, or else from the size that the model was trained at, and what
        `otherwise` says. Raises BadCheckpoint.
        """
        if not (directory / DEFAULTS_FILE).exists():
            own = {"size": (native, native), "min_side": unit, "max_side": 2 * native}
            return cls(**{**own, **otherwise})
        values = read_config(directory, DEFAULTS_FILE)
        try:
            defaults = cls(**{**values, "size": tuple(values["size"])})  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise BadCheckpoint(f"{directory / DEFAULTS_FILE}: {error}") from error
        sides = (defaults.min_side, *defaults.size, defaults.max_side)
        if len(defaults.size) != 2 or any(side % unit for side in sides) or min(sides) < unit:
            raise BadCheckpoint(
                f"{directory / DEFAULTS_FILE}: {json.dumps(values)}: sides are multiples of {unit}"
            )
        return defaults


@dataclass(frozen=True, slots=True)
class Pipeline:
    """name: what users call the model. unit: sides of pictures are multiples of it, in pixels.
    distilled: guidance is an input of the model, which has no second branch. rule: how both
    branches are joined, where there are two.
    """

    name: str
    denoiser: Denoiser
    text: Prompts
    vae: Autoencoder
    noise: NoiseModel
    defaults: Defaults
    linears: Linears
    device: torch.device
    unit: int
    calibration: Calibration | None = None
    distilled: bool = False
    rule: Rule = "linear"

    @property
    def kriging(self) -> Kriging | None:
        """Calibrated forecasts, if the model is calibrated."""
        if self.calibration is None:
            return None
        return Kriging(self.calibration, self.denoiser.patch)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(channels, height, width) of the latent of a picture of `size` (width, height)."""
        return (
            self.denoiser.in_channels,
            size[1] // self.vae.downscale,
            size[0] // self.vae.downscale,
        )

    def grid(self, size: tuple[int, int]) -> Grid:
        """Of the tokens of a picture of `size` (width, height)."""
        return 1, size[1] // self.unit, size[0] // self.unit

    def num_tokens(self, size: tuple[int, int]) -> int:
        return math.prod(self.grid(size))

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises InvalidInput naming the size and what is allowed."""
        low, high = self.defaults.min_side, self.defaults.max_side
        if any(side % self.unit or not low <= side <= high for side in size):
            allowed = f"width x height, each a multiple of {self.unit} from {low} to {high}"
            raise InvalidInput("size", f"{size[0]}x{size[1]}", allowed)

    def shift(self, size: tuple[int, int]) -> float | None:
        """Of the times of a picture of that size, where the model has one for each."""
        return self.noise.shift_of(self.num_tokens(size))

    def conditions(
        self,
        words: Sequence[Words],
        told: Sequence[tuple[tuple[int, int], float]],
        num_rows: int,
    ) -> dict[str, Tensor]:
        """The further conditions of branches, [num_rows, ...] each. told: the size of the picture
        of each, and its guidance. PixArt-alpha at 1024 wants to know the picture's height and
        width, and their ratio; distilled models their guidance; others have tables of the prompt.
        """
        found: dict[str, Tensor] = {}
        for name in self.denoiser.extra:
            if name == "resolution":
                rows = [torch.tensor([h, w]) for (w, h), _ in told]
            elif name == "aspect_ratio":
                rows = [torch.tensor([h / w]) for (w, h), _ in told]
            elif name == "guidance":
                rows = [torch.tensor(guidance) for _, guidance in told]
            else:
                rows = [one.tables[name] for one in words]
            table = torch.stack([row.to(self.device, torch.float32) for row in rows])
            pad = table.new_zeros(num_rows - len(rows), *table.shape[1:])
            found[name] = torch.cat([table, pad])
        return found

    def guided(self, conditional_LC: Tensor, other_LC: Tensor, guidance: float) -> Tensor:
        """One prediction of both branches."""
        return guide(conditional_LC, other_LC, guidance, self.rule)

    def clean_channels(self, prediction_LC: Tensor) -> Tensor:
        """Without the channels that some models add for a learned variance, which no solver here
        reads.
        """
        return prediction_LC[:, : self.denoiser.in_channels * math.prod(self.denoiser.patch)]

    def decode(self, latent_CHW: Tensor) -> Tensor:
        """[C, h, w] -> [3, H, W], nominally -1 to 1. One picture at a time: its bytes depend on it
        alone.
        """
        x = latent_CHW
        for part in self.decode_parts:
            x = part(x)
        return x

    @property
    def decode_parts(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """What `decode` does, one after the other."""
        first, *others = self.vae.decode_parts
        dtype = next(self.vae.parameters()).dtype

        def begin(latent_CHW: Tensor) -> Tensor:
            return first(self.vae.unscale(latent_CHW[None].to(dtype)))

        *parts, last = begin, *others
        return [*parts, lambda x_1CHW: last(x_1CHW)[0]]

    @property
    def decode_shares(self) -> Sequence[float]:
        """Of the work of `decode`, about, that of each part."""
        return self.vae.decode_shares
