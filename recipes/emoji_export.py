"""Writes a trained emoji model as a diffusers directory, bfloat16, that `PixArtSigmaPipeline` runs
too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from emoji_denoiser import TEXT_CONFIG, TRANSFORMER_CONFIG
from musiva.core.errors import BadCheckpoint
from musiva.models.text.t5 import T5Encoder
from musiva.train import load_latest

__all__ = ["below", "export_model"]

MODEL_INDEX = {
    "_class_name": "PixArtSigmaPipeline",
    "_diffusers_version": "0.31.0",
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "final_sigmas_type": "zero",
    "flow_shift": 1.5,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "solver_order": 2,
    "solver_type": "midpoint",
    "use_flow_sigmas": True,
}


# What a request gets that does not say; sides lie where the model was trained.
DEFAULTS = {
    "size": [128, 128],
    "steps": 28,
    "guidance": 4.0,
    "min_side": 64,
    "max_side": 128,
    "max_images": 16,
}


def export_model(run: Path, vae: Path, directory: Path) -> int:
    """Write the averaged weights of the newest checkpoint below `run`; returns the training step.

    Raises BadCheckpoint when there is no checkpoint yet.
    """
    checkpoint = load_latest(run / "checkpoints")
    if checkpoint is None:
        raise BadCheckpoint(f"{run}: no checkpoint yet")
    average = checkpoint.groups["ema"]
    tensors = below(average, "transformer.")
    _write_component(
        directory / "transformer", TRANSFORMER_CONFIG, tensors, "diffusion_pytorch_model"
    )
    text = below(average, "text_encoder.")
    config = T5Encoder.from_config(
        {**TEXT_CONFIG, "vocab_size": len(text["shared.weight"])}
    ).config.to_dict()
    _write_component(directory / "text_encoder", config, text, "model")
    _write_json(directory / "scheduler" / "scheduler_config.json", SCHEDULER)
    shutil.copytree(vae, directory / "vae", dirs_exist_ok=True)
    shutil.copytree(run / "tokenizer", directory / "tokenizer", dirs_exist_ok=True)
    _write_json(directory / "musiva.json", DEFAULTS)
    _write_json(directory / "model_index.json", MODEL_INDEX)
    return checkpoint.step


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _write_component(
    directory: Path, config: Mapping[str, object], tensors: Mapping[str, Tensor], stem: str
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    halved = {name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}
    save_file(halved, directory / f"{stem}.safetensors", metadata={"format": "pt"})
    _write_json(directory / "config.json", config)


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
