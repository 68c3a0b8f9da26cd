"""A sheet of pictures from the averaged weights of a run in progress: one row per prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from emoji_denoiser import TEXT_CONFIG, TRANSFORMER_CONFIG
from emoji_export import below
from emoji_text import MAX_TOKENS
from emoji_vae import load_vae
from musiva.core.errors import BadCheckpoint
from musiva.core.pack import Pack, patchify, unpatchify
from musiva.engine.runner import PlainRun, forward
from musiva.models import pixart
from musiva.models.base import Inputs
from musiva.models.text.t5 import T5Encoder
from musiva.train import load_latest
from musiva.train.report import grid

__all__ = ["PROMPTS", "sample_sheet"]

PROMPTS = (
    "a fox", "a red heart", "a smiling face", "pizza", "a cat face", "a green apple", "a house",
    "a rocket", "a dog", "a flower", "a blue circle", "a tree", "an umbrella", "a car", "a fish",
    "a banana on a blue background",
)  # fmt: skip


@torch.inference_mode()
def sample_sheet(
    run: Path, vae: Path, path: Path, *, pixels: int = 64, steps: int = 28, guidance: float = 4.0,
    prompts: Sequence[str] = PROMPTS, per_prompt: int = 4, shift: float = 1.5, ema: bool = True,
) -> int:  # fmt: skip
    """Draw the sheet with plain Euler steps; returns the training step. Raises BadCheckpoint before
    the first.
    """
    checkpoint = load_latest(run / "checkpoints")
    if checkpoint is None:
        raise BadCheckpoint(f"{run}: no checkpoint yet")
    weights = checkpoint.groups["ema" if ema else "model"]
    denoiser = pixart.from_config(TRANSFORMER_CONFIG)
    denoiser.load_state_dict(below(weights, "transformer."))
    text_weights = below(weights, "text_encoder.")
    text = T5Encoder.from_config({**TEXT_CONFIG, "vocab_size": len(text_weights["shared.weight"])})
    text.load_state_dict(text_weights)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer" / "tokenizer.json"))
    texts = [prompt for prompt in prompts for _ in range(per_prompt)]
    ids = [
        torch.tensor(tokenizer.encode(text_).ids[:MAX_TOKENS])
        for text_ in texts + [""] * len(texts)
    ]
    side = pixels // 8
    pack = Pack.build([(1, side, side)] * len(ids), [len(one) for one in ids])
    text_TD = pack.gather(text(ids), "text")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(texts), denoiser.in_channels, side, side), dtype=np.float32)
    latents = [patchify(one, denoiser.patch)[0] for one in torch.from_numpy(noise)]
    times = [shift * t / (1 + (shift - 1) * t) for t in np.linspace(1, 0, steps + 1)]
    plain = PlainRun()
    for now, after in pairwise(times):
        inputs = Inputs(
            latent_TC=pack.gather(latents * 2),
            timestep_M=torch.full((pack.num_mod_rows,), 1000.0 * now),
            text_TD=text_TD,
        )
        velocity = pack.split(forward(denoiser, inputs, pack, plain))
        pairs = zip(velocity[: len(texts)], velocity[len(texts) :], strict=True)
        latents = [
            x + (after - now) * (without + guidance * (given - without))
            for x, (given, without) in zip(latents, pairs, strict=True)
        ]
    autoencoder = load_vae(vae)
    pictures = []
    for latent_LC in latents:
        latent_CHW = unpatchify(latent_LC, (1, side, side), denoiser.patch)
        pixels_CHW = autoencoder.decode(autoencoder.unscale(latent_CHW[None]))[0].clamp(-1, 1)
        pictures.append(
            Image.fromarray(((pixels_CHW + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        )
    grid(pictures, columns=4 * per_prompt).save(path)
    return checkpoint.step
