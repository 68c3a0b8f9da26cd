"""Sizes of a PixArt denoiser, from the config.json of diffusers' PixArtTransformer2DModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from musiva.core.errors import BadCheckpoint
from musiva.models.config import read_fields

if TYPE_CHECKING:
    from musiva.models.pixart.model import PixArt

__all__ = ["PixArtConfig", "from_config"]

# Settings that change nothing in this family at the values listed, and are refused at any other.
FIXED: dict[str, tuple[object, ...]] = {
    "norm_type": ("ada_norm_single",),
    "norm_elementwise_affine": (False,),
    "activation_fn": ("gelu-approximate",),
    "attention_type": ("default", None),
    "upcast_attention": (False,),
    "dropout": (0, 0.0),
    "norm_num_groups": tuple(range(1, 4097)),
    "num_embeds_ada_norm": tuple(range(1, 100_001)),
}


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

    def __post_init__(self) -> None:
        for name in (
            "num_attention_heads",
            "attention_head_dim",
            "in_channels",
            "patch_size",
            "sample_size",
        ):
            if getattr(self, name) < 1:
                raise BadCheckpoint(f"PixArt: {name}={getattr(self, name)}; expected at least 1")
        if self.cross_attention_dim is None:
            raise BadCheckpoint(
                "PixArt: cross_attention_dim=None; expected the width of the projected text"
            )
        if self.caption_channels is not None and self.cross_attention_dim != self.width:
            raise BadCheckpoint(
                f"PixArt: cross_attention_dim={self.cross_attention_dim}; "
                f"expected {self.width}, the width of the model"
            )
        if self.width % 4:
            raise BadCheckpoint(
                f"PixArt: width {self.width}; expected a multiple of 4 for its positions"
            )
        if self.sized and self.width % 3:
            raise BadCheckpoint(
                f"PixArt: width {self.width}; expected a multiple of 3 for its size conditions"
            )

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
    """The denoiser of a config.json, with untrained weights. Raises BadCheckpoint for what is not
    supported.
    """
    from musiva.models.pixart.model import PixArt

    return PixArt(read_fields(PixArtConfig, config, where="PixArt config.json", fixed=FIXED))
