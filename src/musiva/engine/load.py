"""A model directory to a pipeline."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path as FilePath

import torch

from musiva.core.errors import BadCheckpoint, InvalidInput, UnknownModel
from musiva.engine.clips import clip_defaults, read_clips
from musiva.engine.fallback import runnable
from musiva.engine.kernels import compile_program
from musiva.engine.pipeline import Defaults, Pipeline
from musiva.models import load_weights, read_config
from musiva.models.captured import PIPELINES, ClassDenoiser, module_from, read_autoencoder
from musiva.models.text import Prompts, TextEncoder
from musiva.models.vae import Autoencoder, AutoencoderKL
from musiva.ops.linear import Linears, choose_kernel
from musiva.policy import Calibration
from musiva.samplers import NoiseModel

__all__ = ["load_pipeline", "model_directory", "shipped_models"]

# Whose text encoder is ours, and the most tokens of a prompt.
PIXART = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".onnx", ".msgpack", ".h5")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
    model: str | os.PathLike[str] = "default",
    *,
    dtype: str = "float32",
    device: str = "auto",
    compiled: bool = False,
) -> Pipeline:
    """Load a shipped model by name, or the directory of a pipeline of diffusers.

    dtype: "float32" or "bfloat16", of the denoiser and the text encoder. device: "auto", "cpu",
    "cuda", "cuda:1". compiled: with kernels of `torch.compile`. Raises UnknownModel, BadCheckpoint,
    CannotCapture, InvalidInput, or Unavailable where a library is missing that the model needs, or
    a compiler.
    """
    if dtype not in DTYPES:
        raise InvalidInput("dtype", dtype, ", ".join(DTYPES))
    where = _device(device)
    directory = model_directory(model)
    name = read_config(directory, "model_index.json").get("_class_name")
    if not isinstance(name, str) or name not in (*PIXART, *PIPELINES):
        known = ", ".join((*PIXART, *PIPELINES))
        raise BadCheckpoint(f"{directory}: pipeline {name!r} is not supported; supported: {known}")
    index, kind = read_config(directory, "model_index.json"), PIPELINES.get(name)
    if kind is not None:
        kind.check(directory, index)
    named = [part for part, entry in index.items() if isinstance(entry, list) and entry[0]]
    for part in ("transformer", "vae", "scheduler", *named):
        if not (directory / part).is_dir():
            raise BadCheckpoint(f"{directory}: {part}/ is missing")
    vae = _autoencoder(directory / "vae", where)
    noise = NoiseModel.from_config(read_config(directory / "scheduler", "scheduler_config.json"))
    config = read_config(directory / "transformer")
    text: Prompts
    if kind is None:
        denoiser = runnable(module_from(directory / "transformer", DTYPES[dtype])).to(where)
        encoder = TextEncoder.load(directory, dtype=DTYPES[dtype], max_length=PIXART[name])
        encoder.model.to(where).requires_grad_(False)
        text = encoder
    else:
        denoiser = kind.denoiser(directory, DTYPES[dtype], runnable).to(where)
        text = kind.prompts(directory, DTYPES[dtype], denoiser.text_width).to(where)
        if kind.spacing == "even":
            noise = replace(noise, timestep_spacing="even")
    if text.width != denoiser.text_width:
        raise BadCheckpoint(
            f"{directory}: text encoder of width {text.width}, denoiser for {denoiser.text_width}"
        )
    if compiled:
        compile_program(denoiser)
    kernel = choose_kernel(DTYPES[dtype]) if where.type == "cpu" else "plain"
    unit = vae.downscale * denoiser.patch[1]
    native = _number(config, "sample_size", 128) * vae.downscale
    otherwise: dict[str, object] = {}
    if kind is not None:
        otherwise = {"steps": kind.steps, "guidance": kind.guidance}
        # A table of positions ends there.
        most = _number(config, "pos_embed_max_size", 2 * native) * unit
        otherwise["max_side"] = min(2 * native, most)
    if kind is not None and kind.clip is not None:
        otherwise |= clip_defaults(kind.clip, config, vae.downscale)
    defaults, clips = Defaults.read(directory, native, unit, otherwise), None
    if kind is not None and kind.clip is not None and isinstance(denoiser, ClassDenoiser):
        counts = defaults.frames, defaults.max_frames
        clips = read_clips(kind.clip, denoiser, directory, vae.frame_downscale, *counts)
    return Pipeline(
        name=directory.resolve().name,
        denoiser=denoiser,
        text=text,
        vae=vae,
        noise=noise,
        defaults=defaults,
        linears=Linears(kernel),
        device=where,
        unit=unit,
        calibration=Calibration.read(directory),
        distilled=kind is not None and kind.distilled,
        clips=clips,
        rule="linear" if kind is None else kind.rule,
        settings=_settings(directory),
        compiled=compiled,
    )


def _settings(directory: FilePath) -> str:
    """Digest of the files of a directory that are no weights: configs, tokenizers and such."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.suffix not in WEIGHTS:
            digest.update(f"{path.relative_to(directory)}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _autoencoder(directory: FilePath, device: torch.device) -> Autoencoder:
    """Ours where it is of that class, else the class itself."""
    config = read_config(directory)
    if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        return read_autoencoder(directory).to(device)
    vae = AutoencoderKL.from_config(config)
    load_weights(vae, directory)
    return _channels_last(vae.to(device, torch.float32)).eval().requires_grad_(False)


def _number(config: Mapping[str, object], key: str, default: int) -> int:
    value = config.get(key)
    return value if isinstance(value, int) else default


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
