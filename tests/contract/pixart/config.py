"""Sizes of a PixArt denoiser, from the config.json of diffusers' PixArtTransformer2DModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.contract.pixart.model import PixArt

__all__ = ["PixArtConfig", "from_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixArtConfig:
    """Field names and defaults are diffusers'."""

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    in_channels: int = 4
    out_channels: int | None = 8
    num_layers: int = 28
    cross_attention_dim: int | None = 1152
    attention_bias: bool = True
    sample_size: int = 128
    patch_size: int = 2
    norm_eps: float = 1e-6
    interpolation_scale: float | None = None
    use_additional_conditions: bool | None = None
    caption_channels: int | None = None

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def latent_out(self) -> int:
        return self.in_channels if self.out_channels is None else self.out_channels

    @property
    def sized(self) -> bool:
        """Whether the model is told the picture's resolution and aspect ratio."""
        if self.use_additional_conditions is None:
            return self.sample_size == 128
        return self.use_additional_conditions

    @property
    def position_base(self) -> int:
        return self.sample_size // self.patch_size

    @property
    def position_scale(self) -> float:
        return (
            max(self.sample_size // 64, 1)
            if self.interpolation_scale is None
            else self.interpolation_scale
        )


def from_config(config: Mapping[str, object]) -> PixArt:
    """The denoiser of a config.json, with untrained weights; settings that it does not know are
    taken to be what the published models have.
    """
    from tests.contract.pixart.model import PixArt

    names = {one.name for one in fields(PixArtConfig)}
    return PixArt(PixArtConfig(**{k: v for k, v in config.items() if k in names}))  # type: ignore[arg-type]
