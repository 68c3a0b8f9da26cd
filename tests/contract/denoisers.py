"""Four small denoisers that between them use every method of `Run`: what holds on them holds of the
contract.

cross: text is attended to (PixArt). joint: double and then single stream blocks (SD3, FLUX). video:
attention in frames, then in columns (Latte). unet: two levels, convolutions, group norm, and a
stream with a pack of its own.

T image rows, C text rows, M modulation rows, D width, H heads, K channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from musiva.core.pack import Grid, Pack
from musiva.core.run import Run, Streams
from musiva.models.base import Denoiser, Inputs, SegmentFn
from musiva.ops.modulated_norm import gated_add, modulated_norm
from tests.contract.embeddings import timestep_embedding

HEADS, WIDTH, CHANNELS, TEXT = 2, 32, 4, 12


def split_heads(x: Tensor, parts: int) -> tuple[Tensor, ...]:
    return x.unflatten(-1, (parts, HEADS, -1)).unbind(1)


def positions(grid: Grid) -> Tensor:
    """[L, D]: sinusoids of frame, row and column of each token."""
    coordinates = torch.cartesian_prod(*(torch.arange(n) for n in grid)).view(-1, 3).float()
    return timestep_embedding((coordinates * torch.tensor([31.0, 7.0, 1.0])).sum(1), WIDTH)


class Base(Denoiser):
    patch = (1, 1, 1)
    in_channels = out_channels = CHANNELS
    text_width = TEXT

    def __init__(self) -> None:
        super().__init__()
        self.patch_in = nn.Linear(CHANNELS, WIDTH)
        self.time = nn.Linear(WIDTH, WIDTH)
        self.text_in = nn.Linear(TEXT, WIDTH)
        self.patch_out = nn.Linear(WIDTH, CHANNELS)
        self.blocks = nn.ModuleList(self.build_blocks())

    def build_blocks(self) -> list[nn.Module]:
        raise NotImplementedError

    def embed(self, inputs: Inputs, pack: Pack, run: Run) -> Streams:
        assert inputs.text_TD is not None
        x_TD = run.linear("patch_in", self.patch_in, inputs.latent_TC, pack)
        places_TD = run.once("positions", partial(pack.image.lookup, positions), pack.image.layout)
        x_TD = x_TD + places_TD.to(x_TD)
        time_MD = timestep_embedding(inputs.timestep_M, WIDTH).to(x_TD)
        time_MD = run.linear("time", self.time, time_MD, pack)
        text_CD = run.linear("text_in", self.text_in, inputs.text_TD, pack)
        return {"image": x_TD, "text": text_CD, "time": silu(time_MD)}

    @property
    def segments(self) -> Sequence[tuple[str, SegmentFn]]:
        return [(f"block.{i}", block) for i, block in enumerate(self.blocks)]

    def head(self, streams: Streams, pack: Pack, run: Run) -> Tensor:
        return run.linear("patch_out", self.patch_out, streams["image"], pack)


class Modulated(nn.Module):
    """norm, scale and shift; `fn`; gate. The three come from the time."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site
        self.to_modulation = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, fn, x_TD: Tensor, time_MD: Tensor, pack: Pack, run: Run) -> Tensor:
        shift, scale, gate = run.linear(
            f"{self.site}.time", self.to_modulation, time_MD, pack
        ).chunk(3, -1)

        def value(x_TD: Tensor, pack: Pack) -> Tensor:
            return fn(modulated_norm(x_TD, shift, scale, pack.image, 1e-6), pack)

        return gated_add(x_TD, run.branch(self.site, value, x_TD, pack), gate, pack.image)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x_TD: Tensor, pack: Pack, run: Run, site: str) -> Tensor:
        x_TD = run.linear(f"{site}.in", self.into, x_TD, pack, "gelu_tanh")
        return run.linear(f"{site}.out", self.out, x_TD, pack)


class Attention(nn.Module):
    """Self-attention of the image rows, grouped by `over`."""

    def __init__(self, site: str, over: str | tuple[int, int] = "sample") -> None:
        super().__init__()
        self.site, self.over = site, over
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x_TD: Tensor, pack: Pack, run: Run) -> Tensor:
        q, k, v = split_heads(run.linear(f"{self.site}.qkv", self.qkv, x_TD, pack), 3)
        mixed = run.attend(self.site, {"image": (q, k, v)}, pack, self.over)["image"]
        return run.linear(f"{self.site}.out", self.out, mixed.flatten(1), pack)


class CrossBlock(nn.Module):
    def __init__(self, i: int) -> None:
        super().__init__()
        self.site = f"block.{i}"
        self.attention, self.mlp = Attention(f"{self.site}.attn"), Mlp()
        self.on_attention, self.on_mlp = (
            Modulated(f"{self.site}.attn"),
            Modulated(f"{self.site}.mlp"),
        )
        self.q, self.kv, self.out = (nn.Linear(WIDTH, n * WIDTH) for n in (1, 2, 1))

    def forward(self, streams: Streams, pack: Pack, run: Run) -> Streams:
        x_TD, text_CD, time_MD = streams["image"], streams["text"], streams["time"]
        x_TD = self.on_attention(partial(self.attention, run=run), x_TD, time_MD, pack, run)

        def cross(x_TD: Tensor, pack: Pack) -> Tensor:
            site = f"{self.site}.cross"
            (q,) = split_heads(run.linear(f"{site}.q", self.q, x_TD, pack), 1)
            kv = run.once(
                site,
                lambda: run.linear(f"{site}.kv", self.kv, text_CD, pack),
                pack.streams["text"].content,
            )
            k, v = split_heads(kv, 2)
            mixed = run.attend(site, {"image": (q, None, None), "text": (None, k, v)}, pack)[
                "image"
            ]
            return run.linear(f"{site}.out", self.out, mixed.flatten(1), pack)

        x_TD = x_TD + run.branch(f"{self.site}.cross", cross, x_TD, pack)
        x_TD = self.on_mlp(
            partial(self.mlp, run=run, site=f"{self.site}.mlp"), x_TD, time_MD, pack, run
        )
        return {**streams, "image": x_TD}


class Cross(Base):
    def build_blocks(self) -> list[nn.Module]:
        return [CrossBlock(i) for i in range(2)]


class JointBlock(nn.Module):
    """double: streams have weights of their own and meet in the attention; single: they share all
    weights.
    """

    def __init__(self, i: int, *, single: bool) -> None:
        super().__init__()
        self.site = f"block.{i}"
        names = ["both"] if single else ["text", "image"]
        self.own = {"text": names[0], "image": names[-1]}
        self.qkv = nn.ModuleDict({n: nn.Linear(WIDTH, 3 * WIDTH) for n in names})
        self.out = nn.ModuleDict({n: nn.Linear(WIDTH, WIDTH) for n in names})
        self.mlp = nn.ModuleDict({n: Mlp() for n in names})
        self.shift = nn.Linear(WIDTH, WIDTH)

    def forward(self, streams: Streams, pack: Pack, run: Run) -> Streams:
        shift_MD = run.linear(f"{self.site}.time", self.shift, streams["time"], pack)

        def attend(x: Streams, pack: Pack) -> Streams:
            qkv = {}
            for name, own in self.own.items():
                normed = layer_norm(x[name], (WIDTH,)) + pack.streams[name].to_rows(shift_MD)
                qkv[name] = split_heads(
                    run.linear(f"{self.site}.qkv.{name}", self.qkv[own], normed, pack), 3
                )
            mixed = run.attend(self.site, qkv, pack)
            return {
                name: run.linear(
                    f"{self.site}.out.{name}", self.out[own], mixed[name].flatten(1), pack
                )
                for name, own in self.own.items()
            }

        def mlp(x: Streams, pack: Pack) -> Streams:
            return {
                name: self.mlp[own](
                    layer_norm(x[name], (WIDTH,)), pack, run, f"{self.site}.mlp.{name}"
                )
                for name, own in self.own.items()
            }

        x = {name: streams[name] for name in self.own}
        for site, fn in ((f"{self.site}.attn", attend), (f"{self.site}.mlp", mlp)):
            value = run.branch(site, fn, x, pack)
            x = {name: x[name] + value[name] for name in x}
        return {**streams, **x}


class Joint(Base):
    divided = ("image", "text")

    def build_blocks(self) -> list[nn.Module]:
        return [JointBlock(0, single=False), JointBlock(1, single=True)]


class VideoBlock(nn.Module):
    def __init__(self, i: int, over: str | tuple[int, int]) -> None:
        super().__init__()
        self.site = f"block.{i}"
        self.attention, self.mlp = Attention(f"{self.site}.attn", over), Mlp()
        self.on_attention, self.on_mlp = (
            Modulated(f"{self.site}.attn"),
            Modulated(f"{self.site}.mlp"),
        )

    def forward(self, streams: Streams, pack: Pack, run: Run) -> Streams:
        x_TD = self.on_attention(
            partial(self.attention, run=run), streams["image"], streams["time"], pack, run
        )
        x_TD = self.on_mlp(
            partial(self.mlp, run=run, site=f"{self.site}.mlp"), x_TD, streams["time"], pack, run
        )
        return {**streams, "image": x_TD}


class Video(Base):
    patch = (2, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.patch_in = nn.Linear(2 * CHANNELS, WIDTH)
        self.patch_out = nn.Linear(WIDTH, 2 * CHANNELS)

    def build_blocks(self) -> list[nn.Module]:
        return [VideoBlock(0, "frame"), VideoBlock(1, "column"), VideoBlock(2, (2, 3))]


class ConvBlock(nn.Module):
    """Group norm over the whole picture (one group), SiLU, convolution, on the stream of one
    level.
    """

    def __init__(self, i: int, stream: str, level: int) -> None:
        super().__init__()
        self.site, self.stream, self.level = f"block.{i}", stream, level
        self.conv, self.shift = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Linear(WIDTH, WIDTH)

    def forward(self, streams: Streams, pack: Pack, run: Run) -> Streams:
        shift_MD = run.linear(f"{self.site}.time", self.shift, streams["time"], pack)

        def value(x_TD: Tensor, pack: Pack) -> Tensor:
            rows = pack.image
            stats_T12 = torch.stack([x_TD.mean(1), x_TD.square().mean(1)], 1)[:, None]
            ones_T11 = torch.ones_like(stats_T12[..., :1])
            sums_B121 = run.reduce(f"{self.site}.norm", stats_T12, ones_T11, rows)
            count_B1 = torch.tensor([[math.prod(s.grid)] for s in rows.segments])
            mean_B, square_B = (sums_B121[:, 0, :, 0] / count_B1).unbind(1)
            scale_B = (square_B - mean_B**2 + 1e-5).rsqrt()
            x_TD = (x_TD - rows.to_rows(mean_B[:, None])) * rows.to_rows(scale_B[:, None])
            x_TD = silu(x_TD + rows.to_rows(shift_MD))
            return run.conv(f"{self.site}.conv", self.conv, x_TD, rows)

        x_TD, level = streams[self.stream], pack.level(self.level)
        return {**streams, self.stream: x_TD + run.branch(self.site, value, x_TD, level)}


class Down(nn.Module):
    """Adds the stream of the coarser level, by a convolution with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)

    def forward(self, streams: Streams, pack: Pack, run: Run) -> Streams:
        rows, coarse = pack.image, pack.level(1).image
        return {**streams, "image.1": run.conv("down", self.conv, streams["image"], rows, coarse)}


class Up(nn.Module):
    """Joins the coarser level to the finer one by its nearest row."""

    def __init__(self) -> None:
        super().__init__()
        self.join = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, streams: Streams, pack: Pack, run: Run) -> Streams:
        coarse_TD = streams["image.1"][pack.parents(0, 1)]
        both_TD = torch.cat([streams["image"], coarse_TD], 1)
        return {**streams, "image": run.linear("up", self.join, both_TD, pack)}


class UNet(Base):
    align = 2

    def build_blocks(self) -> list[nn.Module]:
        return [
            ConvBlock(0, "image", 0),
            Down(),
            ConvBlock(2, "image.1", 1),
            Up(),
            ConvBlock(4, "image", 0),
        ]


def build(name: str, seed: int = 0) -> Denoiser:
    """A contract denoiser with random weights of unit gain."""
    kinds: dict[str, type[Base]] = {"cross": Cross, "joint": Joint, "video": Video, "unet": UNet}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kinds[name]()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval().requires_grad_(False)


NAMES = ("cross", "joint", "video", "unet")
