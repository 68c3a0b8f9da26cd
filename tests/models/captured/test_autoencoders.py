"""Autoencoders of diffusers as they are: pictures and clips, units, and what a decoding takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.trials import BY_NAME
from torch import nn

from musiva.core.errors import BadCheckpoint
from musiva.models.captured import DiffusersAutoencoder, read_autoencoder
from musiva.perf.benches.parity_reference import spread
from musiva.perf.catalog import build

MEAN, DEVIATION = [-0.5, 0.2, 0.1, 0.4], [1.5, 0.8, 2.0, 1.2]


def deep() -> nn.Module:
    from diffusers import AutoencoderDC

    blocks, scales = ("ResBlock", "EfficientViTBlock"), ((), (5,))
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        scaling_factor=0.5,
    )


def of_qwen() -> nn.Module:
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=MEAN,
        latents_std=DEVIATION,
    )


def of_wan() -> nn.Module:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=MEAN,
        latents_std=DEVIATION,
    )


def of_cogvideox() -> nn.Module:
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        scaling_factor=0.7,
    )


CLASSES = [deep, of_qwen, of_wan, of_cogvideox]


def wrapped(make: Callable[[], nn.Module]) -> DiffusersAutoencoder:
    torch.manual_seed(0)
    return DiffusersAutoencoder(spread(make()).eval().requires_grad_(False))


@pytest.mark.parametrize(
    ("make", "downscale", "frame_downscale"),
    [(deep, 2, 1), (of_qwen, 4, 2), (of_wan, 8, 4), (of_cogvideox, 8, 4)],
)
@torch.inference_mode()
def test_pictures_and_clips_have_the_sizes_that_are_told(
    make: Callable[[], nn.Module], downscale: int, frame_downscale: int
) -> None:
    vae = wrapped(make)
    assert (vae.downscale, vae.frame_downscale) == (downscale, frame_downscale)
    assert vae.decode(torch.randn(1, 4, 2, 3)).shape == (1, 3, 2 * downscale, 3 * downscale)
    mean, log_variance = vae.encode(torch.randn(2, 3, 2 * downscale, 3 * downscale))
    assert mean.shape == log_variance.shape == (2, 4, 2, 3)
    if vae.has_frames:
        frames = 1 + 2 * frame_downscale
        clip = vae.decode(torch.randn(1, 4, 3, 2, 3))
        assert clip.shape == (1, 3, frames, 2 * downscale, 3 * downscale)


@pytest.mark.parametrize("make", [deep, of_qwen])
@torch.inference_mode()
def test_pixels_and_latents_are_those_of_the_class(make: Callable[[], nn.Module]) -> None:
    vae = wrapped(make)
    latent, side = torch.randn(1, 4, 3, 5), vae.downscale
    given = latent[:, :, None] if vae.has_frames else latent
    theirs = vae.module.decode(given).sample
    assert torch.equal(vae.decode(latent), theirs[:, :, 0] if vae.has_frames else theirs)
    pixels = torch.rand(1, 3, 3 * side, 5 * side) * 2 - 1
    found = vae.module.encode(pixels[:, :, None] if vae.has_frames else pixels)
    mean, log_variance = vae.encode(pixels)
    if vae.has_frames:
        assert torch.equal(mean, found.latent_dist.mode()[:, :, 0])
        assert torch.equal(log_variance, found.latent_dist.logvar[:, :, 0])
    else:
        assert torch.equal(mean, found.latent)
        assert float(log_variance.exp().max()) < 1e-12


def test_units_of_the_denoiser() -> None:
    latent = torch.randn(2, 4, 3, 5)
    assert torch.allclose(wrapped(deep).scale(latent), latent * 0.5)
    assert torch.allclose(wrapped(deep).unscale(latent), latent / 0.5)
    vae = wrapped(of_qwen)
    mean, deviation = (torch.tensor(one).view(1, 4, 1, 1) for one in (MEAN, DEVIATION))
    assert torch.allclose(vae.unscale(latent), latent * deviation + mean)
    assert torch.allclose(vae.unscale(vae.scale(latent)), latent, atol=1e-6)
    clip = latent[:, :, None].expand(-1, -1, 2, -1, -1)
    assert torch.equal(vae.scale(clip)[:, :, 1], vae.scale(latent))


@pytest.mark.parametrize("make", CLASSES)
@torch.inference_mode()
def test_what_a_decoding_holds_is_counted(make: Callable[[], nn.Module]) -> None:
    """More than what the widest layer reads and writes, and less than all of them together."""
    vae, numbers = wrapped(make), []

    def count(layer: nn.Module, given: tuple[object, ...], out: object) -> None:
        tensors = [x for x in (*given, out) if isinstance(x, torch.Tensor)]
        numbers.append(sum(x.numel() for x in tensors))

    layers = [m for m in vae.module.decoder.modules() if not list(m.children())]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    pixels = vae.decode(torch.randn(1, 4, 9, 12))
    for hook in hooks:
        hook.remove()
    told = vae.held_at_pixels * pixels.shape[-1] * pixels.shape[-2]
    assert max(numbers) <= told <= sum(numbers)
    assert all(weight.device.type == "cpu" for weight in vae.parameters())


@pytest.mark.parametrize("make", [deep, of_qwen])
@torch.inference_mode()
def test_a_directory_is_the_class(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    vae = wrapped(make)
    vae.module.save_pretrained(tmp_path)
    latent = torch.randn(1, 4, 3, 2)
    assert torch.equal(read_autoencoder(tmp_path).decode(latent), vae.decode(latent))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "os"}, "no model class of diffusers"),
        ({"latents_mean": [0.0]}, "latents_mean: 1 numbers, 4 channels"),
    ],
)
def test_configs_that_do_not_fit_are_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    of_qwen().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BadCheckpoint, match=message):
        read_autoencoder(tmp_path)


def test_a_class_that_is_no_autoencoder_is_refused(tmp_path: Path) -> None:
    build(BY_NAME["SD3Transformer2DModel"]).save_pretrained(tmp_path)
    with pytest.raises(BadCheckpoint, match="SD3Transformer2DModel is no autoencoder"):
        read_autoencoder(tmp_path)
