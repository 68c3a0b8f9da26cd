"""A model directory, loaded: text encoder, denoiser, autoencoder and noise model, with their
limits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musiva.core.errors import BadCheckpoint, InvalidInput
from musiva.core.pack import Grid, patchify, unpatchify
from musiva.core.types import Path
from musiva.engine.clips import Clips
from musiva.models import Denoiser, read_config
from musiva.models.text import Prompts, Words
from musiva.models.vae import Autoencoder
from musiva.ops.linear import Linears
from musiva.policy import Calibration, Kriging
from musiva.samplers import NoiseModel, Rule, Schedule, build_schedule, guide

__all__ = ["Defaults", "Pipeline"]

DEFAULTS_FILE = "musiva.json"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a request gets that does not say, and what it may say; `musiva.json` beside
    model_index.json.

    size: (width, height) in pixels. min_side, max_side: in pixels. frames: of a clip; 1 is a
    picture. fps: frames of a clip a second.
    """

    size: tuple[int, int]
    steps: int = 20
    guidance: float = 4.5
    min_side: int
    max_side: int
    max_images: int = 16
    frames: int = 1
    max_frames: int = 1
    fps: float = 16.0

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
            defaults = cls(**{**otherwise, **values, "size": tuple(values["size"])})  # type: ignore[arg-type]
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
    branches are joined, where there are two. clips: what it takes where it makes clips; None for a
    model of pictures. settings: of all that its directory says beside its weights. compiled:
    whether `torch.compile` has made kernels of the denoiser's.
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
    clips: Clips | None = None
    settings: str = ""
    compiled: bool = False

    @property
    def kriging(self) -> Kriging | None:
        """Calibrated forecasts, if the model is calibrated."""
        if self.calibration is None:
            return None
        return Kriging(self.calibration, self.denoiser.patch)

    def latent_shape(self, size: tuple[int, int], frames: int = 1) -> tuple[int, ...]:
        """Of the latent of a picture of `size` (width, height), [C, h, w], or of a clip, as the
        class has it: [C, F, h, w] or [F, C, h, w].
        """
        channels, side = self.denoiser.in_channels, self.vae.downscale
        place = size[1] // side, size[0] // side
        if self.clips is None:
            return channels, *place
        count = self.grid(size, frames)[0] * self.denoiser.patch[0]
        return (count, channels, *place) if self.clips.frames_first else (channels, count, *place)

    def grid(self, size: tuple[int, int], frames: int = 1) -> Grid:
        """Of the tokens of a picture of `size` (width, height), or of a clip."""
        count = 1
        if self.clips is not None:
            count = -(-self.clips.latent_frames(frames) // self.denoiser.patch[0])
        return count, size[1] // self.unit, size[0] // self.unit

    def num_tokens(self, size: tuple[int, int], frames: int = 1) -> int:
        return math.prod(self.grid(size, frames))

    def tokens(self, latent: Tensor) -> tuple[Tensor, Grid]:
        """[L, C] of a latent as `latent_shape` has it, and their grid."""
        return patchify(self._channels_first(latent), self.denoiser.patch)

    def latent(self, tokens_LC: Tensor, grid: Grid) -> Tensor:
        """The inverse of `tokens`."""
        ndim = 3 if self.clips is None else 4
        return self._channels_first(unpatchify(tokens_LC, grid, self.denoiser.patch, ndim))

    def still(self, tokens_LC: Tensor, grid: Grid) -> Tensor:
        """[C, h, w]: the latent of a picture, or that of the middle of a clip."""
        latent_CFhw = unpatchify(tokens_LC, grid, self.denoiser.patch, ndim=4)
        return latent_CFhw[:, latent_CFhw.shape[1] // 2]

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises InvalidInput naming the size and what is allowed."""
        low, high = self.defaults.min_side, self.defaults.max_side
        if any(side % self.unit or not low <= side <= high for side in size):
            allowed = f"width x height, each a multiple of {self.unit} from {low} to {high}"
            raise InvalidInput("size", f"{size[0]}x{size[1]}", allowed)

    def check_frames(self, frames: int) -> None:
        """Raises InvalidInput naming the number and what is allowed."""
        if self.clips is None and frames != 1:
            raise InvalidInput("frames", frames, "1: the model makes pictures")
        if self.clips is not None and frames not in self.clips.counts:
            raise InvalidInput("frames", frames, self.clips.allowed())

    def shift(self, size: tuple[int, int], frames: int = 1) -> float | None:
        """Of the times of a picture of that size, where the model has one for each."""
        return self.noise.shift_of(self.num_tokens(size, frames))

    def schedule(self, path: Path) -> Schedule:
        """Of what takes that path. Raises InvalidInput."""
        return build_schedule(
            self.noise, path.sampler, path.steps, spacing=path.spacing, shift=path.shift
        )

    def conditions(
        self,
        words: Sequence[Words],
        guidances: Sequence[float],
        num_rows: int,
    ) -> dict[str, Tensor]:
        """The further conditions of branches, [num_rows, ...] each: tables of their prompts, or,
        for a distilled model, their guidance.
        """
        found: dict[str, Tensor] = {}
        for name in self.denoiser.extra:
            if name == "guidance":
                rows = [torch.tensor(guidance) for guidance in guidances]
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

    def decode(self, latent: Tensor, frames: int = 1) -> Tensor:
        """[C, h, w] -> [3, H, W], nominally -1 to 1, or a clip, as the class has it, -> [3, F, H,
        W]. One picture at a time: its bytes depend on it alone.
        """
        x = latent
        for part in self.decode_parts(frames):
            x = part(x)
        return x

    @staticmethod
    def picture(pixels: Tensor, frames: int = 1) -> np.ndarray:
        """What `decode` gives -> [H, W, 3] uint8, or [F, H, W, 3]; a clip of one frame is a
        picture.
        """
        levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().movedim(0, -1)
        if frames == 1:
            levels = levels.reshape(levels.shape[-3:])
        return np.ascontiguousarray(levels.to(torch.uint8).cpu().numpy())

    def decode_parts(self, frames: int = 1) -> Sequence[Callable[[Any], Any]]:
        """What `decode` does, one after the other."""
        if self.clips is not None and self.clips.by_frame:
            return [self._with_next_frame] * frames

        def begin(latent: Tensor) -> Tensor:
            return self._unscaled(self._kept(latent, frames)[None])

        parts = list(self.vae.decode_parts)
        parts[0] = _chained(begin, parts[0])
        parts[-1] = _chained(parts[-1], itemgetter(0))
        return parts

    def decode_shares(self, frames: int = 1) -> Sequence[float]:
        """Of the work of `decode`, about, that of each part."""
        if self.clips is not None and self.clips.by_frame:
            return [1 / frames] * frames
        return self.vae.decode_shares

    def _with_next_frame(self, x: Any) -> Any:
        """Of a latent, or of (latent, frames that are there), the same with one frame more; the
        clip when all are there.
        """
        latent_CFhw, done = x if isinstance(x, tuple) else (self._channels_first(x), ())
        frame_13HW = self.vae.decode(self._unscaled(latent_CFhw[None, :, len(done)]))
        done = (*done, frame_13HW[0])
        whole = len(done) == latent_CFhw.shape[1]
        return torch.stack(done, dim=1) if whole else (latent_CFhw, done)

    def _channels_first(self, latent: Tensor) -> Tensor:
        """A latent as the class has it, with its channels first; and the way back."""
        turned = self.clips is not None and self.clips.frames_first
        return latent.transpose(0, 1) if turned else latent

    def _kept(self, latent: Tensor, frames: int) -> Tensor:
        """Without the frames in front that only fill a patch up, channels first."""
        if self.clips is None:
            return latent
        latent_CFhw = self._channels_first(latent)
        return latent_CFhw[:, latent_CFhw.shape[1] - self.clips.latent_frames(frames) :]

    def _unscaled(self, latent: Tensor) -> Tensor:
        return self.vae.unscale(latent.to(next(self.vae.parameters()).dtype))


def _chained(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: second(first(x))
