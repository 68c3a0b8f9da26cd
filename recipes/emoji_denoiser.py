"""Stage 2: the PixArt denoiser and its text encoder, trained together on packs of latents of many
sizes.

What a picture is decides itself at high noise, so that times lean that way; and names are learnt
first, from few tokens and plain captions, since there a picture costs least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from emoji_captions import describe, describe_plainly
from emoji_composed import EMPTY, Composer, cells_of
from emoji_data import Emoji, load_emoji, pictures_of
from emoji_latents import RENDER_PIXELS, Pool, load_pool, many_scenes, single_scenes
from emoji_scenes import Scene, Size, held_out_tone
from emoji_text import MAX_TOKENS, load_tokenizer
from emoji_vae import load_vae
from musiva.core.pack import Pack
from musiva.engine.fallback import runnable
from musiva.engine.runner import forward
from musiva.models.base import Inputs
from musiva.models.text.t5 import T5Encoder
from musiva.train import Cursor, Draw, Loss, Objective, Order, Part, TrainRun, fill_pack, keyed_rng

__all__ = ["TEXT_CONFIG", "TRANSFORMER_CONFIG", "DenoiserTask", "Phase"]

TRANSFORMER_CONFIG = {
    "_class_name": "PixArtTransformer2DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 32,
    "attention_type": "default",
    "caption_channels": 160,
    "cross_attention_dim": 224,
    "dropout": 0.0,
    "in_channels": 8,
    "interpolation_scale": None,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 7,
    "num_embeds_ada_norm": 1000,
    "num_layers": 6,
    "out_channels": 8,
    "patch_size": 1,
    "sample_size": 16,
    "upcast_attention": False,
    "use_additional_conditions": False,
}
TEXT_CONFIG = {
    "d_model": 160,
    "d_kv": 32,
    "d_ff": 320,
    "num_layers": 2,
    "num_heads": 5,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
EMPTY_SHARE = 0.1
DOWNSCALE = 8


Source = tuple[Literal["single", "composed", "few", "scene"], Size]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """From step `start` on: pictures come from these sources with these shares. plain: the share of
    captions said in the plainest way; white: of singles on white; rows: most rows of a pack.
    """

    start: int
    shares: Mapping[Source, float]
    plain: float
    white: float
    rows: int
    objective: Objective.Config


@dataclass(frozen=True, slots=True)
class Drawn:
    """One visit to an emoji, settled: its caption's tokens, size, time and the latents to mix."""

    ids: Sequence[int]
    grid: tuple[int, int, int]
    time: float
    clean_LC: np.ndarray
    noise_LC: np.ndarray


class DenoiserTask:
    """Flow matching on the latents of emoji, with captions said in many ways."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        seed: int
        data: Path
        vae: Path
        work: Path
        phases: Sequence[Phase]
        few: int = 12288
        scenes: int = 6144
        packs_per_step: int = 2

        def build(self) -> DenoiserTask:
            """Load pictures and train the tokenizer unless that was done before. Latents are
            encoded when a phase first needs them (minutes).
            """
            return DenoiserTask(self, load_emoji(self.data))

    def __init__(self, config: Config, emoji: Sequence[Emoji]) -> None:
        self.config = config
        self.emoji = emoji
        self.tokenizer = load_tokenizer(emoji, config.work / "tokenizer", config.seed)
        self._vae = load_vae(config.vae)
        self._pictures = pictures_of(emoji, RENDER_PIXELS)
        self._singles, self._scenes_of = single_scenes(emoji, config.seed)
        self._pools: dict[Source, Pool] = {}
        self._composers: dict[Size, Composer] = {}
        weights = [_weight(one) for one in emoji]
        self._order = Order.Config(weights=weights, seed=config.seed).build()
        generator = torch.Generator().manual_seed(config.seed)
        module: nn.Module = PixArtTransformer2DModel.from_config(TRANSFORMER_CONFIG)
        init_denoiser(module, generator)
        self.transformer = runnable(module)
        self.text = T5Encoder.from_config(
            {**TEXT_CONFIG, "vocab_size": self.tokenizer.get_vocab_size()}
        )
        self.text.init_weights(generator)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"transformer": self.transformer.module, "text_encoder": self.text}

    def parts(
        self, cursor: Cursor, step: int
    ) -> tuple[list[Part[list[tuple[Draw, Source, Phase]]]], Cursor]:
        phase = next(one for one in reversed(self.config.phases) if one.start <= step)
        sources = list(phase.shares)
        for source in sources:
            self._ensure_pool(source)
            height, width = source[1]
            # Small sizes may take an export, which nobody may run beside other modules' calls.
            for words in (1, MAX_TOKENS):
                sizes = {"rows": height // DOWNSCALE, "columns": width // DOWNSCALE}
                self.transformer.refusal({**sizes, "words": words})
        edges = np.cumsum([phase.shares[source] for source in sources])

        def source_of(draw: Draw) -> Source:
            at = keyed_rng(self.config.seed, draw, "source").random() * edges[-1]
            return sources[min(int(np.searchsorted(edges, at, side="right")), len(sources) - 1)]

        def rows_of(draw: Draw) -> int:
            _, (height, width) = source_of(draw)
            return (height // DOWNSCALE) * (width // DOWNSCALE)

        parts = []
        for _ in range(self.config.packs_per_step):
            draws, cursor = fill_pack(self._order, cursor, rows_of, phase.rows)
            content = [(draw, source_of(draw), phase) for draw in draws]
            parts.append(Part(content, float(len(draws))))
        return parts, cursor

    def loss(self, part: Part[list[tuple[Draw, Source, Phase]]]) -> Loss:
        # Neighbours of equal size and caption length share one attention call.
        drawn = sorted(
            (self.settle(*one) for one in part.content), key=lambda d: (d.grid, len(d.ids))
        )
        pack = Pack.build([d.grid for d in drawn], [len(d.ids) for d in drawn])
        rows_T = (pack.image.token_T >= 0).nonzero()[:, 0]
        owner_T = pack.image.segment_T[rows_T]
        time_S = torch.tensor([d.time for d in drawn])
        clean_TC = torch.from_numpy(np.concatenate([d.clean_LC for d in drawn]))
        noise_TC = torch.from_numpy(np.concatenate([d.noise_LC for d in drawn]))
        objective = part.content[0][2].objective.build()
        noised_TC, target_TC = objective.noised(clean_TC, noise_TC, time_S[owner_T, None])
        latent_TC = noised_TC.new_zeros(pack.image.num_rows, noised_TC.shape[1]).index_copy(
            0, rows_T, noised_TC
        )
        timestep_M = torch.zeros(pack.num_mod_rows).index_copy(
            0, torch.arange(len(drawn)), 1000 * time_S
        )
        with torch.autocast("cpu", torch.bfloat16):
            text_TD = self._text(drawn, pack)
            inputs = Inputs(latent_TC=latent_TC, timestep_M=timestep_M, text_TD=text_TD)
            prediction_TC = forward(self.transformer, inputs, pack, TrainRun())
        lengths_S = torch.tensor([float(len(d.clean_LC)) for d in drawn])
        loss_S = objective.loss(prediction_TC[rows_T], target_TC, owner_T, lengths_S)
        return Loss(loss_S.sum(), torch.stack([time_S, loss_S.detach()], dim=1))

    def settle(self, draw: Draw, source: Source, phase: Phase) -> Drawn:
        """Everything random about a draw, from its key alone."""
        seed = self.config.seed
        rng = keyed_rng(seed, draw, "caption")
        scene, mean_CHW, std_CHW = self._picture(draw, source, phase, rng)
        if rng.random() < EMPTY_SHARE:
            text = ""
        elif rng.random() < phase.plain:
            text = describe_plainly(scene, self.emoji)
        else:
            text = describe(scene, self.emoji, rng)
        channels, height, width = mean_CHW.shape
        rng = keyed_rng(seed, draw, "noise")
        clean_CHW = mean_CHW + std_CHW * rng.standard_normal(mean_CHW.shape, dtype=np.float32)
        noise_LC = rng.standard_normal((height * width, channels), dtype=np.float32)
        time = phase.objective.build().time(rng, height * width)
        clean_LC = clean_CHW.reshape(channels, -1).T
        return Drawn(
            self.tokenizer.encode(text.lower()).ids[:MAX_TOKENS],
            (1, height, width),
            time,
            clean_LC,
            noise_LC,
        )

    def _picture(
        self, draw: Draw, source: Source, phase: Phase, rng: np.random.Generator
    ) -> tuple[Scene, np.ndarray, np.ndarray]:
        """A scene, and mean and deviation of its latent, `[C, h, w]` float32."""
        kind, size = source
        if kind == "composed":
            return self._composers[size].draw(rng)
        pool = self._pools[source]
        if kind == "single":
            own = self._scenes_of[draw.sample]
            row = own[0] if rng.random() < phase.white else int(rng.integers(own[1], own[-1] + 1))
        else:
            row = int(rng.integers(len(pool.scenes)))
        mean_CHW, std_CHW = pool.mean_VCHW[row], pool.std_VCHW[row]
        return pool.scenes[row], mean_CHW.float().numpy(), std_CHW.float().numpy()

    def _ensure_pool(self, source: Source) -> None:
        """Load the pictures of a source, or make them, when a phase first needs them."""
        kind, size = source
        if kind == "composed":
            if size not in self._composers:
                self._composers[size] = self._composer(size)
        elif source not in self._pools:
            config = self.config
            if kind == "single":
                scenes = self._singles
            else:
                count = config.few if kind == "few" else config.scenes
                scenes = many_scenes(self.emoji, kind, count, size, config.seed)
            self._pools[source] = self._pool(scenes, size)

    def _composer(self, size: Size) -> Composer:
        cells = {}
        for side in cells_of(size):
            self._ensure_pool(("single", (side, side)))
            cells[side] = self._pools["single", (side, side)]
        weights = np.array([_weight(one) for one in self.emoji])
        white = [own[0] if own else None for own in self._scenes_of]
        empty = self._pool([EMPTY], size)
        return Composer(size, self.emoji, weights / weights.sum(), cells, white, empty)

    def _pool(self, scenes: Sequence[Scene], size: Size) -> Pool:
        return load_pool(self._pictures, scenes, self._vae, size, self.config.work / "latents")

    def _text(self, drawn: Sequence[Drawn], pack: Pack) -> Tensor:
        encoded = torch.cat(self.text([torch.tensor(d.ids) for d in drawn]))
        rows = pack.streams["text"]
        rows_T = (rows.token_T >= 0).nonzero()[:, 0]
        return encoded.new_zeros(rows.num_rows, encoded.shape[1]).index_copy(0, rows_T, encoded)


def _weight(emoji: Emoji) -> float:
    """How often an emoji comes alone in an epoch."""
    if held_out_tone(emoji):
        return 0.0
    return 0.2 if emoji.tone else 0.3 if emoji.is_flag else 1.0


@torch.no_grad()
def init_denoiser(denoiser: nn.Module, generator: torch.Generator) -> None:
    """DiT's initialisation (Peebles and Xie, 2023): little comes out of a block at first, nothing
    of the head.
    """
    for name, parameter in denoiser.named_parameters():
        if (
            parameter.ndim < 2
            or name.startswith(("proj_out", "adaln_single.linear"))
            or name.endswith("attn2.to_out.0.weight")
        ):
            parameter.zero_()
        elif name.startswith("adaln_single.emb."):
            parameter.normal_(0.0, 0.02, generator=generator)
        elif name.endswith("table"):
            parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
        else:
            # A patch is taken in by a linear layer, whatever the shape of its weight.
            nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)
