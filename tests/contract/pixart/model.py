"""The PixArt denoiser.

T image rows, C text rows, M modulation rows, D width, H heads, K channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from musiva.core.pack import Grid, Pack
from musiva.core.run import Run, Streams
from musiva.models.base import Denoiser, Inputs, SegmentFn
from musiva.ops.modulated_norm import gated_add, modulated_norm
from tests.contract.embeddings import sincos_positions, timestep_embedding
from tests.contract.pixart.config import PixArtConfig

__all__ = ["PixArt"]


class PixArt(Denoiser):
    """Self-attention, cross-attention to the text and an MLP per block, all modulated by one
    AdaLN.
    """

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        p, d = config.patch_size, config.width
        self.config = config
        self.patch = (1, p, p)
        self.in_channels = config.in_channels
        self.out_channels = config.latent_out
        self.text_width = config.caption_channels or config.cross_attention_dim
        self.extra = ("resolution", "aspect_ratio") if config.sized else ()
        self.patch_in = nn.Linear(config.in_channels * p * p, d)
        self.time = TimeEmbedding(d, d)
        self.time_out = nn.Linear(d, 6 * d)
        if config.sized:
            self.resolution = TimeEmbedding(d // 3, d // 3)
            self.aspect_ratio = TimeEmbedding(d // 3, d // 3)
        if config.caption_channels is not None:
            self.text_in = nn.Linear(config.caption_channels, d)
            self.text_out = nn.Linear(d, d)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.num_layers))
        self.head_table = nn.Parameter(torch.randn(2, d) / d**0.5)
        self.patch_out = nn.Linear(d, p * p * config.latent_out)

    def embed(self, inputs: Inputs, pack: Pack, run: Run) -> Streams:
        dtype = self.head_table.dtype
        x_TD = run.linear("patch_in", self.patch_in, inputs.latent_TC.to(dtype), pack)
        positions = partial(pack.image.lookup, partial(self._positions, x_TD))
        x_TD = x_TD + run.once("positions", positions, pack.image.layout)
        time_MD = self.time(inputs.timestep_M, dtype, pack, run, "time")
        if self.config.sized:
            # One number for the height, one for the width, one for their ratio: a third of the
            # width each.
            sizes = inputs.extra["resolution"].T
            embedded = [self.resolution(size_M, dtype, pack, run, "resolution") for size_M in sizes]
            embedded.append(
                self.aspect_ratio(
                    inputs.extra["aspect_ratio"].flatten(), dtype, pack, run, "aspect_ratio"
                )
            )
            time_MD = time_MD + torch.cat(embedded, dim=-1)
        modulation_MD = run.linear("time_out", self.time_out, nn.functional.silu(time_MD), pack)
        text_CD = run.once(
            "text", partial(self._text, inputs, pack, run), pack.streams["text"].content
        )
        return {"image": x_TD, "text": text_CD, "time": time_MD, "modulation": modulation_MD}

    @property
    def segments(self) -> Sequence[tuple[str, SegmentFn]]:
        return [(block.site, block) for block in self.blocks]  # pyright: ignore[reportReturnType]

    def head(self, streams: Streams, pack: Pack, run: Run) -> Tensor:
        shift_MD, scale_MD = (self.head_table[None] + streams["time"][:, None]).unbind(1)
        x_TD = modulated_norm(streams["image"], shift_MD, scale_MD, pack.image, 1e-6)
        return run.linear("patch_out", self.patch_out, x_TD, pack)

    def _positions(self, like_TD: Tensor, grid: Grid) -> Tensor:
        config = self.config
        base, scale = config.position_base, config.position_scale
        return sincos_positions(*grid[1:], config.width, base=base, scale=scale).to(like_TD)

    def _text(self, inputs: Inputs, pack: Pack, run: Run) -> Tensor:
        assert inputs.text_TD is not None
        text_CD = inputs.text_TD.to(self.head_table.dtype)
        if self.config.caption_channels is None:
            return text_CD
        text_CD = run.linear("text_in", self.text_in, text_CD, pack, "gelu_tanh")
        return run.linear("text_out", self.text_out, text_CD, pack)


class TimeEmbedding(nn.Module):
    """A number to a vector: sinusoids, then two linears."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(256, hidden)
        self.linear_2 = nn.Linear(hidden, width)

    def forward(
        self, number_M: Tensor, dtype: torch.dtype, pack: Pack, run: Run, site: str
    ) -> Tensor:
        x_MD = timestep_embedding(number_M, 256).to(dtype)
        x_MD = run.linear(f"{site}.1", self.linear_1, x_MD, pack)
        return run.linear(f"{site}.2", self.linear_2, nn.functional.silu(x_MD), pack)


class Block(nn.Module):
    def __init__(self, config: PixArtConfig, index: int) -> None:
        super().__init__()
        d, bias = config.width, config.attention_bias
        self.site = f"block.{index}"
        self.num_heads = config.num_attention_heads
        self.eps = config.norm_eps
        self.table = nn.Parameter(torch.randn(6, d) / d**0.5)
        self.qkv = nn.Linear(d, 3 * d, bias=bias)
        self.out = nn.Linear(d, d)
        self.cross_q = nn.Linear(d, d, bias=bias)
        self.cross_kv = nn.Linear(config.cross_attention_dim or d, 2 * d, bias=bias)
        self.cross_out = nn.Linear(d, d)
        self.mlp_in = nn.Linear(d, 4 * d)
        self.mlp_out = nn.Linear(4 * d, d)

    def forward(self, streams: Streams, pack: Pack, run: Run) -> Streams:
        x_TD, text_CD = streams["image"], streams["text"]
        modulation_M6D = self.table[None] + streams["modulation"].unflatten(-1, (6, -1))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation_M6D.unbind(1)

        def attend(x_TD: Tensor, pack: Pack) -> Tensor:
            y_TD = modulated_norm(x_TD, shift_a, scale_a, pack.image, self.eps)
            return self._attend(y_TD, pack, run)

        def cross(x_TD: Tensor, pack: Pack) -> Tensor:
            return self._cross(x_TD, text_CD, pack, run)

        def mlp(x_TD: Tensor, pack: Pack) -> Tensor:
            y_TD = modulated_norm(x_TD, shift_m, scale_m, pack.image, self.eps)
            y_TD = run.linear(f"{self.site}.mlp.in", self.mlp_in, y_TD, pack, "gelu_tanh")
            return run.linear(f"{self.site}.mlp.out", self.mlp_out, y_TD, pack)

        x_TD = gated_add(
            x_TD, run.branch(f"{self.site}.attn", attend, x_TD, pack), gate_a, pack.image
        )
        x_TD = x_TD + run.branch(f"{self.site}.cross", cross, x_TD, pack)
        x_TD = gated_add(x_TD, run.branch(f"{self.site}.mlp", mlp, x_TD, pack), gate_m, pack.image)
        return {**streams, "image": x_TD}

    def _attend(self, y_TD: Tensor, pack: Pack, run: Run) -> Tensor:
        site = f"{self.site}.attn"
        qkv_T3HK = run.linear(f"{site}.qkv", self.qkv, y_TD, pack).unflatten(
            -1, (3, self.num_heads, -1)
        )
        q_THK, k_THK, v_THK = qkv_T3HK.unbind(1)
        out_THK = run.attend(site, {"image": (q_THK, k_THK, v_THK)}, pack)["image"]
        return run.linear(f"{site}.out", self.out, out_THK.flatten(1), pack)

    def _cross(self, x_TD: Tensor, text_CD: Tensor, pack: Pack, run: Run) -> Tensor:
        site = f"{self.site}.cross"
        q_THK = run.linear(f"{site}.q", self.cross_q, x_TD, pack).unflatten(
            -1, (self.num_heads, -1)
        )

        def keys_values() -> Tensor:
            kv_CD = run.linear(f"{site}.kv", self.cross_kv, text_CD, pack)
            return kv_CD.unflatten(-1, (2, self.num_heads, -1))

        kv_C2HK = run.once(site, keys_values, pack.streams["text"].content)
        k_CHK, v_CHK = kv_C2HK.unbind(1)
        qkv = {"image": (q_THK, None, None), "text": (None, k_CHK, v_CHK)}
        out_THK = run.attend(site, qkv, pack)["image"]
        return run.linear(f"{site}.out", self.cross_out, out_THK.flatten(1), pack)
