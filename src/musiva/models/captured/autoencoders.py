"""Autoencoders of diffusers, as they are: any class with `encode` and `decode`.

B samples, C channels, F frames, H x W pixels; F' frames and h x w positions of a latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from musiva.core.errors import BadCheckpoint
from musiva.models.captured.load import module_from

__all__ = ["DiffusersAutoencoder", "read_autoencoder"]

# The logarithm of a variance that is none: diffusers' classes clamp theirs there.
NO_VARIANCE = -30.0
# A side of the latent that is decoded without data, in positions.
PROBE = 8


class DiffusersAutoencoder(nn.Module):
    """What `musiva.models.vae.Autoencoder` asks for, of a class that works on pictures [B, C, H, W]
    or on clips [B, C, F, H, W]; these are given a picture as one frame.
    """

    centre_C: Tensor
    spread_C: Tensor

    def __init__(self, module: nn.Module) -> None:
        """Raises BadCheckpoint for a config that does not say what its latents are like."""
        super().__init__()
        self.module: Any = module
        self.has_frames = any(isinstance(layer, nn.Conv3d) for layer in module.modules())
        config: Mapping[str, Any] = dict(self.module.config)
        self.channels, centre_C, spread_C = _latents(type(module).__name__, config)
        self.register_buffer("centre_C", centre_C, persistent=False)
        self.register_buffer("spread_C", spread_C, persistent=False)
        # Here, and not when someone asks: it puts other weights into the module for a moment.
        picture, numbers = self._without_data(1)
        self.downscale = picture[-1] // PROBE
        self.held_at_pixels = numbers / math.prod(picture[-2:])
        self.frame_downscale = 1
        if self.has_frames:
            # The first is one by itself, and some classes take an even number another way.
            clip, _ = self._without_data(3)
            self.frame_downscale = (clip[2] - picture[2]) // 2

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.module.encode(self._framed(pixels))
        if hasattr(found, "latent_dist"):
            mean, log_variance = found.latent_dist.mean, found.latent_dist.logvar
        else:
            mean, log_variance = found.latent, torch.full_like(found.latent, NO_VARIANCE)
        return _like(mean, pixels), _like(log_variance, pixels)

    def decode(self, latent: Tensor) -> Tensor:
        (pixels,) = self.module.decode(self._framed(latent), return_dict=False)
        return _like(pixels, latent)

    @property
    def decode_parts(self) -> Sequence[Callable[[Tensor], Tensor]]:
        return [self.decode]

    @property
    def decode_shares(self) -> Sequence[float]:
        return (1.0,)

    def scale(self, latent: Tensor) -> Tensor:
        return (latent - _along(self.centre_C, latent)) / _along(self.spread_C, latent)

    def unscale(self, latent: Tensor) -> Tensor:
        return latent * _along(self.spread_C, latent) + _along(self.centre_C, latent)

    def _framed(self, x: Tensor) -> Tensor:
        return x.unsqueeze(2) if self.has_frames and x.ndim == 4 else x

    def _without_data(self, frames: int) -> tuple[torch.Size, int]:
        """The shape of what is decoded of so many frames, and the most numbers that are there at
        once.
        """
        decoding = _Decoding(self.module)
        named = [*decoding.named_parameters(), *decoding.named_buffers()]
        weights = {name: x.to("meta") for name, x in named}
        extents = (1, self.channels, *((frames,) if self.has_frames else ()), PROBE, PROBE)
        latent = torch.empty(extents, dtype=self.module.dtype, device="meta")
        with torch.no_grad(), _Held(weights.values()) as held:
            pixels = functional_call(decoding, weights, (latent,))
        return pixels.shape, held.numbers


def read_autoencoder(directory: Path) -> DiffusersAutoencoder:
    """Of a component directory, in float32, since it is always exact. Raises BadCheckpoint."""
    module = module_from(directory, torch.float32)
    if not (hasattr(module, "encode") and hasattr(module, "decode")):
        raise BadCheckpoint(f"{directory}: {type(module).__name__} is no autoencoder")
    return DiffusersAutoencoder(module)


class _Decoding(nn.Module):
    """A module that decodes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def forward(self, latent: Tensor) -> Tensor:
        return self.module.decode(latent, return_dict=False)[0]


class _Held(TorchDispatchMode):
    """numbers: the most that were there at once of what operations made."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.numbers = 0
        self._weights = {StorageWeakRef(weight.untyped_storage()) for weight in weights}
        self._there: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        found = func(*args, **(kwargs or {}))
        for x in tree_leaves(found):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                self._there[StorageWeakRef(storage)] = storage.nbytes() // x.element_size()
        there = {ref: n for ref, n in self._there.items() if not ref.expired()}
        self._there = {ref: n for ref, n in there.items() if ref not in self._weights}
        self.numbers = max(self.numbers, sum(self._there.values()))
        return found


def _latents(name: str, config: Mapping[str, Any]) -> tuple[int, Tensor, Tensor]:
    """How many channels they have, and of each what is 0 to a denoiser, and what is 1 from it."""
    channels = config.get("latent_channels", config.get("z_dim"))
    if not isinstance(channels, int):
        raise BadCheckpoint(f"vae config: {name} does not name latent_channels or z_dim")
    found = []
    for key, default in (("latents_mean", 0.0), ("latents_std", 1.0)):
        given = config.get(key)
        values = [default] * channels if given is None else list(given)
        if len(values) != channels:
            raise BadCheckpoint(f"vae config: {key}: {len(values)} numbers, {channels} channels")
        found.append(torch.tensor(values, dtype=torch.float32))
    mean_C, deviation_C = found
    shift, factor = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    return channels, mean_C + shift, deviation_C / factor


def _along(x_C: Tensor, latent: Tensor) -> Tensor:
    return x_C.view(-1, *[1] * (latent.ndim - 2))


def _like(x: Tensor, given: Tensor) -> Tensor:
    """Without the axis of a single frame where what was given has none."""
    return x.squeeze(2) if x.ndim > given.ndim else x
