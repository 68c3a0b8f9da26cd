"""Stage 1: the small autoencoder (f8) whose latents the denoiser works on.

Crops of the emoji on plain, gradient and textured grounds; absolute, gradient and multi-scale
errors with a little Kullback-Leibler. A share of every batch also decodes a shrunken latent to the
shrunken picture (equivariance, EQ-VAE, Kouzelis et al., 2025), which keeps latents smooth and so
easier to learn for a denoiser. Latents are decoded with noise added, for a denoiser's are never
exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from emoji_data import Emoji, load_emoji, render
from emoji_grounds import WHITE, draw_ground
from musiva.models.vae import AutoencoderKL
from musiva.models.weights import load_weights, read_config
from musiva.train import Cursor, Draw, Loss, Order, Part, keyed_rng

__all__ = ["VAE_CONFIG", "VaeTask", "compose", "export_vae", "load_vae", "psnr_db"]

LATENT_CHANNELS = 8
VAE_CONFIG = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [24, 48, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "force_upcast": False,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": LATENT_CHANNELS,
    "latents_mean": None,
    "latents_std": None,
    "layers_per_block": 1,
    "mid_block_add_attention": False,
    "norm_num_groups": 8,
    "sample_size": 128,
    "scaling_factor": 1.0,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}


class VaeTask:
    """Reconstruction of random crops."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        seed: int
        data: Path
        batch: int = 16
        crop: int = 64
        sizes: tuple[int, ...] = (128, 128, 96, 64, 40)
        white_share: float = 0.4
        kl_weight: float = 4e-3
        equivariance_share: float = 0.25
        max_latent_noise: float = 0.3

        def build(self) -> VaeTask:
            """Load and render every picture (seconds). Raises Unavailable when they cannot be
            fetched.
            """
            emoji = load_emoji(self.data)
            return VaeTask(self, emoji)

    def __init__(self, config: Config, emoji: Sequence[Emoji]) -> None:
        self.config = config
        self._renders = {size: render(emoji, size) for size in sorted(set(config.sizes))}
        weights = [1.0 if one.tone == 0 else 0.25 for one in emoji]
        self._order = Order.Config(weights=weights, seed=config.seed).build()
        torch.manual_seed(config.seed)
        self.vae = AutoencoderKL.from_config(VAE_CONFIG)

    def renders(self, size: int) -> np.ndarray:
        """All pictures at one of the sizes, `[N, size, size, 4]` uint8."""
        return self._renders[size]

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"vae": self.vae}

    def parts(self, cursor: Cursor, step: int) -> tuple[list[Part[list[Draw]]], Cursor]:
        draws = []
        for _ in range(self.config.batch):
            draw, cursor = self._order.next(cursor)
            draws.append(draw)
        half = len(draws) // 2
        return [
            Part(draws[:half], float(half)),
            Part(draws[half:], float(len(draws) - half)),
        ], cursor

    def loss(self, part: Part[list[Draw]]) -> Loss:
        settled = [self._crop(draw) for draw in part.content]
        pixels_BCHW, noise_BCHW, blur_BCHW = (
            torch.from_numpy(np.stack(column)) for column in zip(*settled, strict=True)
        )
        small = round(len(settled) * self.config.equivariance_share)
        with torch.autocast("cpu", torch.bfloat16):
            mean_BCHW, logvar_BCHW = self.vae.encode(pixels_BCHW)
            mean_BCHW, logvar_BCHW = mean_BCHW.float(), logvar_BCHW.float()
            latent_BCHW = mean_BCHW + noise_BCHW * (0.5 * logvar_BCHW).exp()
            deviation_BCHW = mean_BCHW.detach().std(dim=(0, 2, 3), keepdim=True)
            decoded_BCHW = self.vae.decode(latent_BCHW + deviation_BCHW * blur_BCHW)
            shrunk_BCHW = self.vae.decode(F.avg_pool2d(latent_BCHW[:small], 2))
        kl_B = 0.5 * (mean_BCHW**2 + logvar_BCHW.exp() - 1 - logvar_BCHW).mean(dim=(1, 2, 3))
        loss_B = _error(decoded_BCHW.float(), pixels_BCHW) + self.config.kl_weight * kl_B
        equal_B = _error(shrunk_BCHW.float(), F.avg_pool2d(pixels_BCHW[:small], 2))
        return Loss(loss_B.sum() + 0.25 / self.config.equivariance_share * equal_B.sum())

    def _crop(self, draw: Draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A picture, the noise of its posterior, and the noise it is decoded with."""
        rng = keyed_rng(self.config.seed, draw, "crop")
        crop = self.config.crop
        size = self.config.sizes[rng.integers(len(self.config.sizes))]
        rgba = self._renders[size][draw.sample]
        if size < crop:
            top, left = rng.integers(0, crop - size + 1, size=2)
            around = ((top, crop - size - top), (left, crop - size - left), (0, 0))
            rgba = np.pad(rgba, around)
        y, x = rng.integers(0, max(size, crop) - crop + 1, size=2)
        rgba = rgba[y : y + crop, x : x + crop]
        if rng.random() < 0.5:
            rgba = rgba[:, ::-1]
        ground = WHITE if rng.random() < self.config.white_share else draw_ground(rng)
        picture = compose(rgba, ground.render(crop, crop, rng))
        shape = (2, LATENT_CHANNELS, crop // 8, crop // 8)
        noise, blur = rng.standard_normal(shape, dtype=np.float32)
        return picture, noise, blur * rng.uniform(0, self.config.max_latent_noise)


def compose(rgba_HW4: np.ndarray, ground_CHW: np.ndarray) -> np.ndarray:
    """A picture on a ground, `[3, H, W]` in -1..1."""
    scaled_CHW = rgba_HW4.astype(np.float32).transpose(2, 0, 1) * np.float32(1 / 255)
    alpha_1HW = scaled_CHW[3:]
    return (scaled_CHW[:3] * alpha_1HW + ground_CHW * (1 - alpha_1HW)) * np.float32(2) - np.float32(
        1
    )


def _error(decoded_BCHW: Tensor, pixels_BCHW: Tensor) -> Tensor:
    delta_BCHW = decoded_BCHW - pixels_BCHW
    loss_B = delta_BCHW.abs().mean(dim=(1, 2, 3)) + 2.0 * (delta_BCHW**2).mean(dim=(1, 2, 3))
    for axis in (2, 3):
        loss_B = loss_B + 0.5 * delta_BCHW.diff(dim=axis).abs().mean(dim=(1, 2, 3))
    for _ in range(2):
        delta_BCHW = F.avg_pool2d(delta_BCHW, 2)
        loss_B = loss_B + 0.5 * delta_BCHW.abs().mean(dim=(1, 2, 3))
    return loss_B


@torch.inference_mode()
def psnr_db(vae: AutoencoderKL, pixels_NCHW: Tensor) -> Tensor:
    """PSNR of each reconstruction `[N]`, pictures one at a time."""
    errors = []
    for pixels_CHW in pixels_NCHW:
        mean_BCHW, _ = vae.encode(pixels_CHW[None])
        decoded_BCHW = vae.decode(mean_BCHW).clamp(-1, 1)
        errors.append(((decoded_BCHW - pixels_CHW) / 2).square().mean())
    return -10 * torch.stack(errors).log10()


def export_vae(task: VaeTask, directory: Path) -> None:
    """Write the task's autoencoder as a component of a diffusers directory, bfloat16, latents
    whitened.
    """
    renders = task.renders(128)
    whites = [compose(rgba, np.ones((3, 128, 128), np.float32)) for rgba in renders[::7]]
    with torch.inference_mode():
        means = torch.cat([task.vae.encode(torch.from_numpy(one)[None])[0] for one in whites])
    whiten(task.vae, means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3)))
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.bfloat16().contiguous() for name, tensor in task.vae.state_dict().items()
    }
    save_file(tensors, directory / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(VAE_CONFIG, indent=2) + "\n")


def load_vae(directory: Path) -> AutoencoderKL:
    """An exported autoencoder, float32. Raises BadCheckpoint."""
    vae = AutoencoderKL.from_config(read_config(directory))
    load_weights(vae, directory)
    return vae.float().eval()


@torch.no_grad()
def whiten(vae: AutoencoderKL, mean_C: Tensor, std_C: Tensor) -> None:
    """Fold "subtract the mean, divide by the deviation" of each channel into the two 1x1
    convolutions.

    Latents then have mean 0 and deviation 1 with `scaling_factor` 1, which every pipeline can
    apply.
    """
    channels = len(mean_C)
    weight, bias = (
        vae.get_parameter("post_quant_conv.weight"),
        vae.get_parameter("post_quant_conv.bias"),
    )
    bias += weight[:, :, 0, 0] @ mean_C
    weight *= std_C[None, :, None, None]
    weight, bias = vae.get_parameter("quant_conv.weight"), vae.get_parameter("quant_conv.bias")
    weight[:channels] /= std_C[:, None, None, None]
    bias[:channels] = (bias[:channels] - mean_C) / std_C
    bias[channels:] -= 2 * std_C.log()
