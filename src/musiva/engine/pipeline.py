"""A model directory, loaded: text encoder, denoiser, autoencoder and noise model, with their
limits.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

import torch
from torch import Tensor

from musiva.core.errors import BadCheckpoint, InvalidInput, UnknownModel
from musiva.core.pack import Grid
from musiva.engine.predict import read_denoiser
from musiva.models import Denoiser, load_weights, read_config
from musiva.models.text import TextEncoder
from musiva.models.vae import AutoencoderKL
from musiva.ops.linear import Linears, choose_kernel
from musiva.policy import Calibration, Kriging
from musiva.samplers import NoiseModel

__all__ = ["Defaults", "Pipeline", "load_pipeline", "model_directory", "shipped_models"]

PIPELINES = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DEFAULTS_FILE = "musiva.json"


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
    def read(cls, directory: FilePath, native: int, unit: int) -> Defaults:
        """From the directory's file, or else from the size that the model was trained at. Raises
        BadCheckpoint.
        """
        if not (directory / DEFAULTS_FILE).exists():
            return cls(size=(native, native), min_side=unit, max_side=2 * native)
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
    """name: what users call the model. unit: sides of pictures are multiples of it, in pixels."""

    name: str
    denoiser: Denoiser
    text: TextEncoder
    vae: AutoencoderKL
    noise: NoiseModel
    defaults: Defaults
    linears: Linears
    device: torch.device
    unit: int
    calibration: Calibration | None = None

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

    def size_conditions(self, sizes: Sequence[tuple[int, int]], num_rows: int) -> dict[str, Tensor]:
        """The further conditions of PixArt-alpha at 1024: the picture's height and width, and their
        ratio.
        """
        if not self.denoiser.extra:
            return {}
        padded = [*sizes, *[(1, 1)] * (num_rows - len(sizes))]
        resolution = torch.tensor(
            [[h, w] for w, h in padded], dtype=torch.float32, device=self.device
        )
        return {"resolution": resolution, "aspect_ratio": resolution[:, :1] / resolution[:, 1:]}

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
        first, *others, last = self.vae.decode_parts
        dtype = next(self.vae.parameters()).dtype

        def begin(latent_CHW: Tensor) -> Tensor:
            return first(self.vae.unscale(latent_CHW[None].to(dtype)))

        return [begin, *others, lambda x_1CHW: last(x_1CHW)[0]]

    @property
    def decode_shares(self) -> Sequence[float]:
        """Of the work of `decode`, about, that of each part."""
        return self.vae.decode_shares


def shipped_models() -> dict[str, FilePath]:
    """Names and directories of the models in this package."""
    root = FilePath(__file__).parents[1] / "models"
    return {path.parent.name: path.parent for path in sorted(root.glob("*/model_index.json"))}


def model_directory(model: str | os.PathLike[str]) -> FilePath:
    """Of a shipped model by name, or of one that lies somewhere. Raises UnknownModel."""
    directory = shipped_models().get(str(model), FilePath(model))
    if not (directory / "model_index.json").is_file():
        names = ", ".join(shipped_models()) or "none is shipped"
        raise UnknownModel(
            "model", str(model), f"a shipped model ({names}) or a directory with a model_index.json"
        )
    return directory


def load_pipeline(
    model: str | os.PathLike[str] = "default", *, dtype: str = "float32", device: str = "auto"
) -> Pipeline:
    """Load a shipped model by name, or a diffusers PixArt directory.

    dtype: "float32" or "bfloat16", of the denoiser and the text encoder. device: "auto", "cpu",
    "cuda", "cuda:1". Raises UnknownModel, BadCheckpoint or InvalidInput.
    """
    if dtype not in DTYPES:
        raise InvalidInput("dtype", dtype, ", ".join(DTYPES))
    where = _device(device)
    directory = model_directory(model)
    kind = read_config(directory, "model_index.json").get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise BadCheckpoint(
            f"{directory}: pipeline {kind!r} is not supported; supported: {', '.join(PIPELINES)}"
        )
    denoiser = read_denoiser(directory / "transformer", DTYPES[dtype]).to(where)
    vae = AutoencoderKL.from_config(read_config(directory / "vae"))
    load_weights(vae, directory / "vae")
    text = TextEncoder.load(directory, dtype=DTYPES[dtype], max_length=PIPELINES[kind])
    text.model.to(where).requires_grad_(False)
    if text.width != denoiser.text_width:
        raise BadCheckpoint(
            f"{directory}: text encoder of width {text.width}, denoiser for {denoiser.text_width}"
        )
    kernel = choose_kernel(DTYPES[dtype]) if where.type == "cpu" else "plain"
    unit = vae.downscale * denoiser.patch[1]
    native = int(read_config(directory / "transformer").get("sample_size", 128)) * vae.downscale  # type: ignore[call-overload]
    return Pipeline(
        name=directory.resolve().name,
        denoiser=denoiser,
        text=text,
        vae=_channels_last(vae.to(where, torch.float32)).eval().requires_grad_(False),
        noise=NoiseModel.from_config(read_config(directory / "scheduler", "scheduler_config.json")),
        defaults=Defaults.read(directory, native, unit),
        linears=Linears(kernel),
        device=where,
        unit=unit,
        calibration=Calibration.read(directory),
    )


def _channels_last(vae: AutoencoderKL) -> AutoencoderKL:
    """Convolutions on a CPU take about 0.6 of the time with channels innermost."""
    return vae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _device(name: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cuda" and not cuda):
        raise InvalidInput(
            "device",
            name,
            "auto, cpu" + (", cuda, cuda:N" if cuda else "; this machine has no GPU"),
        )
    return device
