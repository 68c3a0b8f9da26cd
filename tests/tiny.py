"""Complete model directories of a few thousand random weights, for tests that need a real model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from musiva.models.text import T5Config, T5Encoder, train_tokenizer
from musiva.models.vae import AutoencoderKL, AutoencoderKLConfig
from tests.contract.pixart import PixArt, PixArtConfig, to_diffusers

__all__ = ["FLOW_SCHEDULER", "TINY_DEFAULTS", "tiny_pixart_directory"]

FLOW_SCHEDULER: Mapping[str, object] = {
    "_class_name": "DPMSolverMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 1.5,
    "solver_order": 2,
    "algorithm_type": "dpmsolver++",
}
TINY_DEFAULTS: Mapping[str, object] = {
    "size": [32, 32],
    "steps": 4,
    "guidance": 3.0,
    "min_side": 16,
    "max_side": 128,
    "max_images": 8,
}
SUBJECTS = ("a red fox", "a blue whale", "two green apples", "a snowy mountain", "an old bicycle")
PLACES = (
    "in the rain",
    "at sunset",
    "on a table",
    "under water",
    "in a quiet forest",
    "by the sea",
)


def tiny_pixart_directory(
    path: Path,
    *,
    seed: int = 0,
    patch: int = 1,
    layers: int = 2,
    heads: int = 2,
    head_dim: int = 8,
    sample_size: int = 8,
    sigma_pipeline: bool = True,
    sized: bool = False,
    learned_variance: bool = False,
    scheduler: Mapping[str, object] = FLOW_SCHEDULER,
    defaults: Mapping[str, object] | None = TINY_DEFAULTS,
    max_length: int = 64,
) -> Path:
    """Write a random PixArt model as a diffusers directory, which diffusers loads too.

    Returns `path`. The same arguments give the same weights. Sides of pictures are multiples of
    8 * patch.

    sized             with the size conditions of PixArt-alpha at 1024; heads * head_dim is then a
                      multiple of 12. Diffusers' pipelines pass them only at sample_size 128.
    learned_variance  twice the output channels
    scheduler         content of scheduler_config.json
    defaults          content of musiva.json; None for a directory without it
    """
    text_width, latent_channels = 16, 4
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        captions = [f"{subject} {place}" for subject in SUBJECTS for place in PLACES]
        tokenizer = train_tokenizer(captions, 96, path / "tokenizer", max_length)

        t5_config = T5Config(
            vocab_size=tokenizer.vocab_size,
            d_model=text_width,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            feed_forward="gated-gelu",
        )
        t5 = T5Encoder(t5_config)
        t5.init_weights()

        config = PixArtConfig(
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            in_channels=latent_channels,
            out_channels=latent_channels * (2 if learned_variance else 1),
            num_layers=layers,
            cross_attention_dim=heads * head_dim,
            sample_size=sample_size,
            patch_size=patch,
            interpolation_scale=1.0,
            use_additional_conditions=sized,
            caption_channels=text_width,
        )
        denoiser = PixArt(config)

        vae_config = AutoencoderKLConfig(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=latent_channels,
            norm_num_groups=4,
            sample_size=sample_size * 8,
            scaling_factor=0.5,
        )
        vae = AutoencoderKL(vae_config)

    class_names = {"_class_name": "PixArtTransformer2DModel", "norm_type": "ada_norm_single"}
    norms = {"norm_elementwise_affine": False, "activation_fn": "gelu-approximate"}
    _write(path / "transformer", {**class_names, **norms, **asdict(config)})
    _save(
        path / "transformer" / "diffusion_pytorch_model",
        to_diffusers(denoiser, denoiser.state_dict()),
    )
    _write(path / "vae", {"_class_name": "AutoencoderKL", **asdict(vae_config)})
    _save(path / "vae" / "diffusion_pytorch_model", vae.state_dict())
    _write(path / "text_encoder", t5_config.to_dict())
    _save(path / "text_encoder" / "model", t5.state_dict())
    _write(path / "scheduler", scheduler, "scheduler_config.json")
    components = {
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    kind = "PixArtSigmaPipeline" if sigma_pipeline else "PixArtAlphaPipeline"
    _write(path, {"_class_name": kind, **components}, "model_index.json")
    if defaults is not None:
        _write(path, defaults, "musiva.json")
    return path


def _write(directory: Path, content: Mapping[str, object], name: str = "config.json") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _save(stem: Path, tensors: Mapping[str, Tensor]) -> None:
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, stem.with_suffix(".safetensors"), metadata={"format": "pt"})
