"""Pools of pictures as latents, encoded once by the trained autoencoder and kept on disk.

A cache file is named by a hash of what it was made from: the scenes, some of them as they are
painted, the autoencoder's weights and the size. Mean and deviation are kept, so that
training draws a fresh latent every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from emoji_data import Emoji
from emoji_grounds import WHITE, draw_ground
from emoji_scenes import (
    DRAWN,
    FEW,
    LAYOUTS,
    Placed,
    Scene,
    Size,
    box_of,
    draw_scene,
    held_out_tone,
)
from emoji_vae import compose
from musiva.models.vae import AutoencoderKL

__all__ = ["RENDER_PIXELS", "Pool", "load_pool", "many_scenes", "paint", "single_scenes"]

GROUNDS_PER_EMOJI = 2
RENDER_PIXELS = 160  # what scenes scale down from
PAINTED = 64  # scenes of a pool whose pixels are part of its name


@dataclass(frozen=True, slots=True)
class Pool:
    """Scenes and their latents at one size; mean, std: `[V, C, h, w]` float16, scaled."""

    scenes: Sequence[Scene]
    mean_VCHW: Tensor
    std_VCHW: Tensor


def single_scenes(emoji: Sequence[Emoji], seed: int) -> tuple[list[Scene], list[range]]:
    """Every emoji alone: on white, then on other grounds, of which base forms have more; and the
    indices of each emoji's scenes. Emoji that are kept out have none.
    """
    rng = np.random.default_rng([seed, *b"single"])
    scenes: list[Scene] = []
    ranges = []
    for index, one in enumerate(emoji):
        start = len(scenes)
        if not held_out_tone(one):
            (slot,) = LAYOUTS["single"]
            scenes.append(Scene("single", (Placed(index, slot),), WHITE))
            for _ in range(1 if one.tone or one.is_flag else GROUNDS_PER_EMOJI):
                placed = Placed(index, slot, float(rng.uniform(0.8, 1.0)))
                scenes.append(Scene("single", (placed,), draw_ground(rng)))
        ranges.append(range(start, len(scenes)))
    return scenes, ranges


def many_scenes(
    emoji: Sequence[Emoji], kind: Literal["few", "scene"], count: int, size: Size, seed: int
) -> list[Scene]:
    """`count` scenes of base forms, and now and then flags, drawn for one size. kind "few": of one
    or two at stated places, two in five on white.
    """
    rng = np.random.default_rng([seed, *size, *kind.encode()])
    weights = np.array([0.0 if one.tone else 0.1 if one.is_flag else 1.0 for one in emoji])
    weights /= weights.sum()
    layouts, white = (FEW, 0.4) if kind == "few" else (DRAWN, 0.1)
    return [draw_scene(emoji, weights, rng, layouts=layouts, white=white) for _ in range(count)]


def paint(
    scene: Scene, pictures: Sequence[Image.Image], size: Size, rng: np.random.Generator
) -> np.ndarray:
    """The picture of a scene, `[3, H, W]` in -1..1. pictures: RGBA, by the index of the emoji."""
    canvas = Image.new("RGBA", (size[1], size[0]))
    for one in scene.placed:
        top, left, side = box_of(one, size)
        small = pictures[one.emoji].resize((side, side), Image.Resampling.LANCZOS)
        canvas.alpha_composite(small, (left, top))
    return compose(np.asarray(canvas), scene.ground.render(*size, rng))


def load_pool(
    pictures: Sequence[Image.Image],
    scenes: Sequence[Scene],
    vae: AutoencoderKL,
    size: Size,
    directory: Path,
) -> Pool:
    """The scenes at one size; encoded and stored unless they are there."""
    path = directory / f"{size[0]}x{size[1]}-{_key(pictures, scenes, vae, size)}.safetensors"
    if not path.exists():
        mean_VCHW, std_VCHW = _encode(pictures, scenes, vae, size)
        directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        save_file({"mean": mean_VCHW, "std": std_VCHW}, temporary)
        temporary.replace(path)
    stored = load_file(path)
    return Pool(scenes, stored["mean"], stored["std"])


def _encode(
    pictures: Sequence[Image.Image], scenes: Sequence[Scene], vae: AutoencoderKL, size: Size
) -> tuple[Tensor, Tensor]:
    @torch.inference_mode()
    def encode(index: int) -> tuple[Tensor, Tensor]:
        # Kernel threads are a setting of the calling thread; the pool is what runs side by side.
        torch.set_num_threads(1)
        painted = paint(scenes[index], pictures, size, np.random.default_rng(index))
        mean_BCHW, logvar_BCHW = vae.encode(torch.from_numpy(painted)[None])
        std_BCHW = (0.5 * logvar_BCHW).exp() * vae.config.scaling_factor
        return vae.scale(mean_BCHW).half(), std_BCHW.half()

    with ThreadPoolExecutor() as pool:
        means, stds = zip(*pool.map(encode, range(len(scenes))), strict=True)
    return torch.cat(means), torch.cat(stds)


def _key(
    pictures: Sequence[Image.Image], scenes: Sequence[Scene], vae: AutoencoderKL, size: Size
) -> str:
    digest = hashlib.sha256(repr((size, vae.config)).encode())
    for scene in scenes:
        digest.update(repr(scene).encode())
    # Whatever changes how pictures look, emoji or code, shows in some of them.
    for index in range(0, len(scenes), max(1, len(scenes) // PAINTED)):
        painted = paint(scenes[index], pictures, size, np.random.default_rng(index))
        digest.update(painted.tobytes())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
