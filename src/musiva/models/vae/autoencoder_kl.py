"""The convolutional autoencoder of latent diffusion (Rombach et al., 2022), as diffusers'
`AutoencoderKL`.

Parameter names and shapes are those of diffusers, so its state dicts load one to one. Shapes: B
pictures, C channels, H x W positions; N = H * W. A picture of H x W pixels has latents of H/f x
W/f, with f = 2 ** (number of blocks - 1); sizes that f does not divide round down, as they do in
diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch.nn.functional as F
from torch import Tensor, nn

from musiva.core.errors import BadCheckpoint

__all__ = ["AutoencoderKL", "AutoencoderKLConfig"]

EPS = 1e-6
# What a layer reads and writes is there at once, and a copy of it for a norm or an activation.
COPIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderKLConfig:
    """The fields of diffusers' `vae/config.json`, with its defaults.

    `sample_size` and `force_upcast` are hints for other programs and change nothing here.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, ...] = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> AutoencoderKLConfig:
        """Read a parsed `config.json`; keys that start with an underscore are diffusers' notes.

        Raises BadCheckpoint for a key or a value that this implementation does not support.
        """
        known = {field.name for field in fields(cls)}
        kept = {key: value for key, value in values.items() if not key.startswith("_")}
        for key in kept:
            if key not in known:
                raise _unsupported(key, kept[key], f"the keys {', '.join(sorted(known))}")
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        config = cls(**lists)  # type: ignore[arg-type]
        config.check()
        return config

    def check(self) -> None:
        """Raise BadCheckpoint unless every value is one that the model below implements."""
        for key in (
            "in_channels",
            "out_channels",
            "latent_channels",
            "norm_num_groups",
            "layers_per_block",
        ):
            value = getattr(self, key)
            if type(value) is not int or value < 1:
                raise _unsupported(key, value, "a whole number of at least 1")
        widths = self.block_out_channels
        if (
            not isinstance(widths, tuple)
            or not widths
            or any(type(w) is not int or w < 1 for w in widths)
        ):
            raise _unsupported("block_out_channels", widths, "a list of at least one whole number")
        if any(width % self.norm_num_groups for width in widths):
            raise _unsupported("block_out_channels", widths, f"multiples of {self.norm_num_groups}")
        for key, kind in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            if getattr(self, key) != (kind,) * len(widths):
                raise _unsupported(key, getattr(self, key), f"{len(widths)} times {kind}")
        if self.act_fn not in ("silu", "swish"):
            raise _unsupported("act_fn", self.act_fn, "silu")
        for key in ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"):
            if not isinstance(getattr(self, key), bool):
                raise _unsupported(key, getattr(self, key), "true or false")
        scale, shift = self.scaling_factor, self.shift_factor
        if not isinstance(scale, int | float) or not 0 < scale < float("inf"):
            raise _unsupported("scaling_factor", scale, "a number above 0")
        if shift is not None and not isinstance(shift, int | float):
            raise _unsupported("shift_factor", shift, "null or a number")
        for key in ("latents_mean", "latents_std"):
            if getattr(self, key) is not None:
                raise _unsupported(
                    key, getattr(self, key), "null (use scaling_factor and shift_factor)"
                )


class AutoencoderKL(nn.Module):
    """Pictures to latents and back. Holds no state beside its weights.

    On a CPU in float32, `.to(memory_format=torch.channels_last)` decodes in 0.6 to 0.9 of the time.
    """

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        latent = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(latent, latent, 1) if config.use_post_quant_conv else None

    @classmethod
    def from_config(cls, values: Mapping[str, object]) -> AutoencoderKL:
        """Build with random weights from a parsed `config.json`. Raises BadCheckpoint."""
        return cls(AutoencoderKLConfig.from_dict(values))

    @property
    def downscale(self) -> int:
        """Pixels per latent position along each side."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    @property
    def frame_downscale(self) -> int:
        """It makes pictures."""
        return 1

    def encode(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in -1..1 to (mean, log variance), both `[B, latent_channels, H/f, W/f]`, not yet
        scaled.
        """
        moments_BCHW = self.encoder(pixels_BCHW)
        if self.quant_conv is not None:
            moments_BCHW = self.quant_conv(moments_BCHW)
        mean_BCHW, logvar_BCHW = moments_BCHW.chunk(2, dim=1)
        return mean_BCHW, logvar_BCHW.clamp(-30.0, 20.0)

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Unscaled latents to pixels, about -1..1, `[B, out_channels, H*f, W*f]`.

        A picture's bytes are promised to be the same only for equal batches: decode one at a time.
        """
        x_BCHW = latent_BCHW
        for part in self.decode_parts:
            x_BCHW = part(x_BCHW)
        return x_BCHW

    @property
    def decode_parts(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """What `decode` does, one after the other. By layers and not by tiles: norms and attention
        look at the whole picture, so that tiles would give another one.
        """
        first, *others = self.decoder.parts
        return [lambda latent_BCHW: first(self._unquantised(latent_BCHW)), *others]

    @property
    def decode_shares(self) -> Sequence[float]:
        """Of the multiplications of `decode`, those of each part, attention's products apart."""
        costs = self.decoder.part_costs
        return [cost / sum(costs) for cost in costs]

    @property
    def held_at_pixels(self) -> float:
        """The most numbers a pixel that `decode` holds at once, about."""
        return COPIES * self.widest_at_pixels

    @property
    def widest_at_pixels(self) -> float:
        """The most numbers a pixel that a layer of `decode` reads and writes."""
        widths, found, previous = self.config.block_out_channels[::-1], [], 0
        for index, width in enumerate(widths):
            # Positions of a block before its upsampler, and of the next one behind it.
            share = 4.0 ** (index - len(widths) + 1)
            found += [share * (previous + width), 4.0 * share * 2 * width]
            previous = width
        return max(found[:-1])

    def _unquantised(self, latent_BCHW: Tensor) -> Tensor:
        return latent_BCHW if self.post_quant_conv is None else self.post_quant_conv(latent_BCHW)

    def scale(self, latent_BCHW: Tensor) -> Tensor:
        """Encoder latents to the units a denoiser works in."""
        return (latent_BCHW - (self.config.shift_factor or 0.0)) * self.config.scaling_factor

    def unscale(self, latent_BCHW: Tensor) -> Tensor:
        """The inverse of `scale`."""
        return latent_BCHW / self.config.scaling_factor + (self.config.shift_factor or 0.0)


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        previous = widths[0]
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            self.down_blocks.append(
                DownBlock(previous, width, config.layers_per_block, groups, last)
            )
            previous = width
        self.mid_block = MidBlock(previous, groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, previous, eps=EPS)
        self.conv_out = nn.Conv2d(previous, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv_in(x_BCHW)
        for block in self.down_blocks:
            x_BCHW = block(x_BCHW)
        x_BCHW = self.mid_block(x_BCHW)
        return self.conv_out(F.silu(self.conv_norm_out(x_BCHW)))


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups, config.mid_block_add_attention)
        self.up_blocks = nn.ModuleList()
        previous = widths[0]
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            self.up_blocks.append(
                UpBlock(previous, width, config.layers_per_block + 1, groups, last)
            )
            previous = width
        self.conv_norm_out = nn.GroupNorm(groups, previous, eps=EPS)
        self.conv_out = nn.Conv2d(previous, config.out_channels, 3, padding=1)

    @property
    def parts(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """What it does, one after the other: the middle, each layer of each block, the end."""
        layers = [layer for block in self._blocks for layer in block.layers]
        return [self._middle, *layers, self._end]

    @property
    def part_costs(self) -> Sequence[float]:
        """Weights times positions that each part multiplies, per position of the latent."""
        costs, positions = [float(_num_weights(self.conv_in, self.mid_block))], 1.0
        for block in self._blocks:
            for layer in block.layers:
                # An upsampler has its positions doubled along both sides first.
                positions *= 4.0 if isinstance(layer, Upsample) else 1.0
                costs.append(positions * _num_weights(layer))
        return [*costs, positions * _num_weights(self.conv_out)]

    @property
    def _blocks(self) -> Sequence[UpBlock]:
        return [block for block in self.up_blocks if isinstance(block, UpBlock)]

    def _middle(self, x_BCHW: Tensor) -> Tensor:
        return self.mid_block(self.conv_in(x_BCHW))

    def _end(self, x_BCHW: Tensor) -> Tensor:
        return self.conv_out(F.silu(self.conv_norm_out(x_BCHW)))


class DownBlock(nn.Module):
    """Resnets, then half the positions along both sides unless it is the last block."""

    def __init__(self, width_in: int, width_out: int, count: int, groups: int, last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(width_in, width_out, count, groups)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width_out)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x_BCHW = layer(x_BCHW)
        return x_BCHW


class UpBlock(nn.Module):
    """Resnets, then twice the positions along both sides unless it is the last block."""

    def __init__(self, width_in: int, width_out: int, count: int, groups: int, last: bool) -> None:
        super().__init__()
        self.resnets = _resnets(width_in, width_out, count, groups)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(width_out)])

    @property
    def layers(self) -> Sequence[nn.Module]:
        """In order; the decoder calls them, each when there is time for it."""
        return [*self.resnets, *self.upsamplers]


class MidBlock(nn.Module):
    def __init__(self, width: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([SelfAttention(width, groups)] if attention else [])
        self.resnets = nn.ModuleList([Resnet(width, width, groups), Resnet(width, width, groups)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        first, second = self.resnets
        x_BCHW = first(x_BCHW)
        for attention in self.attentions:
            x_BCHW = x_BCHW + attention(x_BCHW)
        return second(x_BCHW)


class Resnet(nn.Module):
    """Two normalised, activated 3x3 convolutions around a shortcut."""

    def __init__(self, width_in: int, width_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, eps=EPS)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width_out, eps=EPS)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = self.conv1(F.silu(self.norm1(x_BCHW)))
        h_BCHW = self.conv2(F.silu(self.norm2(h_BCHW)))
        if self.conv_shortcut is not None:
            x_BCHW = self.conv_shortcut(x_BCHW)
        return x_BCHW + h_BCHW


class SelfAttention(nn.Module):
    """One attention head as wide as the block, over all positions of a picture."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=EPS)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BNC = self.group_norm(x_BCHW).flatten(2).transpose(1, 2)
        q_BNC, k_BNC, v_BNC = self.to_q(x_BNC), self.to_k(x_BNC), self.to_v(x_BNC)
        out_B1NC = F.scaled_dot_product_attention(q_BNC[:, None], k_BNC[:, None], v_BNC[:, None])
        return self.to_out[0](out_B1NC[:, 0]).transpose(1, 2).unflatten(2, x_BCHW.shape[2:])


class Downsample(nn.Module):
    """A strided convolution, padded on the right and below only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Every position doubled along both sides, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


def _resnets(width_in: int, width_out: int, count: int, groups: int) -> nn.ModuleList:
    widths = [width_in] + [width_out] * (count - 1)
    return nn.ModuleList(Resnet(width, width_out, groups) for width in widths)


def _num_weights(*modules: nn.Module) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters())


def _unsupported(key: str, value: object, supported: str) -> BadCheckpoint:
    return BadCheckpoint(f"vae config: {key}: got {value!r}; supported: {supported}")
