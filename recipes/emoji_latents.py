"""The latents of every emoji at every size, encoded once by the trained autoencoder and kept on
disk.

A cache file is named by a hash of everything it was made from: the pictures, the autoencoder's
weights, the size and the grounds. Mean and deviation are kept, so that training draws a fresh
latent every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from emoji_captions import COLOURS, Ground
from emoji_data import Emoji, render
from emoji_vae import compose
from musiva.models.vae import AutoencoderKL

__all__ = ["Latents", "Size", "grounds_of", "load_latents"]

Size = tuple[int, int]  # height, width in pixels
COLOURED_PER_EMOJI = 2


@dataclass(frozen=True, slots=True)
class Latents:
    """mean, std: `[V, C, h, w]` float16, scaled; `first[i]` is the row of emoji i on its first
    ground.
    """

    mean_VCHW: Tensor
    std_VCHW: Tensor
    first: Sequence[int]


def grounds_of(emoji: Emoji) -> list[Ground]:
    """White always; base forms also on two more colours, the same in every run."""
    grounds = [Ground("white")]
    if emoji.tone == 0 and not emoji.is_flag:
        names = [name for name in COLOURS if name != "white"]
        rng = np.random.default_rng([*emoji.name.encode()])
        grounds += [
            Ground(names[i]) for i in rng.choice(len(names), COLOURED_PER_EMOJI, replace=False)
        ]
    return grounds


def load_latents(
    emoji: Sequence[Emoji], vae: AutoencoderKL, size: Size, directory: Path
) -> Latents:
    """Latents of all emoji on all their grounds at one size; encoded and stored unless they are
    there.
    """
    first = list(np.cumsum([0] + [len(grounds_of(one)) for one in emoji])[:-1])
    path = directory / f"{size[0]}x{size[1]}-{_key(emoji, vae, size)}.safetensors"
    if not path.exists():
        mean_VCHW, std_VCHW = _encode(emoji, vae, size)
        directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        save_file({"mean": mean_VCHW, "std": std_VCHW}, temporary)
        temporary.replace(path)
    stored = load_file(path)
    return Latents(stored["mean"], stored["std"], first)


def _encode(emoji: Sequence[Emoji], vae: AutoencoderKL, size: Size) -> tuple[Tensor, Tensor]:
    renders = render(emoji, min(size))

    @torch.inference_mode()
    def encode(index: int) -> tuple[Tensor, Tensor]:
        pictures = [place(renders[index], ground, size) for ground in grounds_of(emoji[index])]
        mean_BCHW, logvar_BCHW = vae.encode(torch.from_numpy(np.stack(pictures)))
        return vae.scale(mean_BCHW).half(), (
            (0.5 * logvar_BCHW).exp() * vae.config.scaling_factor
        ).half()

    with ThreadPoolExecutor() as pool:
        means, stds = zip(*pool.map(encode, range(len(emoji))), strict=True)
    return torch.cat(means), torch.cat(stds)


def place(rgba_SS4: np.ndarray, ground: Ground, size: Size) -> np.ndarray:
    """A square picture in the middle of a plain ground, `[3, H, W]` in -1..1."""
    side = rgba_SS4.shape[0]
    canvas = np.zeros((*size, 4), np.uint8)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    canvas[top : top + side, left : left + side] = rgba_SS4
    colour_311 = np.array(ground.rgb, np.float32)[:, None, None] / 255
    return compose(canvas, np.broadcast_to(colour_311, (3, *size)))


def _key(emoji: Sequence[Emoji], vae: AutoencoderKL, size: Size) -> str:
    digest = hashlib.sha256(repr((size, vae.config, COLOURS, COLOURED_PER_EMOJI)).encode())
    for one in emoji:
        digest.update(one.name.encode() + one.webp)
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
