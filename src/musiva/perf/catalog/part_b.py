"""Diffusers' transformer classes, from CogView 3 to HiDream."""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.compiler.arguments import Argument, Sizes, given, places, time, values
from musiva.perf.catalog.base import Entry, Excluded

__all__ = ["ENTRIES", "EXCLUDED"]

# Text and clip have positions of their own in Cosmos 3, this far apart.
COSMOS3_MARGIN = 15000
# Frames of the past that Helios is given, from the farthest to the nearest.
HELIOS_LONG, HELIOS_MIDDLE, HELIOS_SHORT = 16, 2, 1


def _grid(height: int, width: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(height), torch.arange(width))


def _pixels(s: Sizes) -> Tensor:
    return torch.tensor([16.0 * s["rows"], 16.0 * s["columns"]])


def _corner(s: Sizes) -> Tensor:
    return torch.zeros(2)


def _clip_length(s: Sizes) -> int:
    return s["frames"] * s["rows"] * s["columns"]


def _after_words(s: Sizes) -> Tensor:
    return s["words"] + torch.arange(_clip_length(s))


def _cosmos3_places(s: Sizes) -> Tensor:
    words = torch.arange(s["words"], dtype=torch.float32).expand(3, -1)
    frames, rows, columns = (torch.arange(s[name]) for name in ("frames", "rows", "columns"))
    clip = torch.cartesian_prod(frames + s["words"] + COSMOS3_MARGIN, rows, columns)
    return torch.cat([words, clip.T.float()], dim=1)


def _flux_image(s: Sizes) -> Tensor:
    grid = _grid(s["rows"], s["columns"]).float()
    return torch.cat([torch.zeros(len(grid), 1), grid], dim=1)


def _four_axes_image(s: Sizes) -> Tensor:
    grid = _grid(s["rows"], s["columns"])
    zeros = torch.zeros(len(grid), 1, dtype=grid.dtype)
    return torch.cat([zeros, grid, zeros], dim=1)


def _four_axes_text(s: Sizes) -> Tensor:
    ids = torch.zeros(s["words"], 4, dtype=torch.int64)
    ids[:, 3] = torch.arange(s["words"])
    return ids


def _helios_places(start: int, length: int) -> Argument:
    return places(lambda _: torch.arange(start, start + length), batch="axis")


def _helios_near(s: Sizes) -> Tensor:
    # The first frame of all is always there.
    last = 1 + HELIOS_LONG + HELIOS_MIDDLE
    return torch.tensor([0, *range(last, last + HELIOS_SHORT)])


def _helios_now(s: Sizes) -> Tensor:
    return 1 + HELIOS_LONG + HELIOS_MIDDLE + HELIOS_SHORT + torch.arange(s["frames"])


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="CogView3PlusTransformer2DModel",
        config={
            "in_channels": 5,
            "out_channels": 5,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "text_embed_dim": 24,
            "time_embed_dim": 20,
            "condition_dim": 8,
            "pos_embed_max_size": 64,
        },
        arguments={
            "hidden_states": values(5, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 24),
            "timestep": time(),
            "original_size": places(_pixels, batch="axis"),
            "target_size": places(_pixels, batch="axis"),
            "crop_coords": places(_corner, batch="axis"),
        },
    ),
    Entry(
        name="CogView4Transformer2DModel",
        config={
            "in_channels": 5,
            "out_channels": 5,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "text_embed_dim": 24,
            "time_embed_dim": 20,
            "condition_dim": 8,
            "rope_axes_dim": (64, 64),
        },
        arguments={
            "hidden_states": values(5, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 24),
            "timestep": time(),
            "original_size": places(_pixels, batch="axis"),
            "target_size": places(_pixels, batch="axis"),
            "crop_coords": places(_corner, batch="axis"),
        },
    ),
    # A padding mask would want torchvision; it is zeros anyway.
    Entry(
        name="CosmosTransformer3DModel",
        config={
            "in_channels": 5,
            "out_channels": 5,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "mlp_ratio": 2.0,
            "text_embed_dim": 24,
            "adaln_lora_dim": 12,
            "max_size": (16, 64, 64),
            "concat_padding_mask": False,
        },
        arguments={
            "hidden_states": values(5, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 24),
            "fps": given(lambda _: 30),
        },
    ),
    # One packed sequence for each call: there is no axis of a batch.
    Entry(
        name="Cosmos3OmniTransformer",
        config={
            "head_dim": 16,
            "hidden_size": 48,
            "intermediate_size": 56,
            "latent_channel": 5,
            "patch_latent_dim": 20,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_hidden_layers": 2,
            "vocab_size": 61,
            "rope_axes_dim": (4, 2, 2),
        },
        arguments={
            "input_ids": Argument(kind="classes", dims=("words",), batch="none", high=61),
            "text_indexes": places(lambda s: torch.arange(s["words"])),
            "position_ids": places(_cosmos3_places),
            "und_len": given(lambda s: s["words"]),
            "sequence_length": given(lambda s: s["words"] + _clip_length(s)),
            "vision_tokens": values(1, 5, "frames", "2*rows", "2*columns", batch="list"),
            "vision_token_shapes": given(lambda s: [(s["frames"], s["rows"], s["columns"])]),
            "vision_sequence_indexes": places(_after_words),
            "vision_mse_loss_indexes": places(_after_words),
            "vision_timesteps": Argument(
                kind="time", dims=("frames*rows*columns",), batch="none", high=1000.0
            ),
            "vision_noisy_frame_indexes": places(lambda s: torch.arange(s["frames"]), batch="list"),
        },
    ),
    Entry(
        name="EasyAnimateTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 5,
            "out_channels": 5,
            "patch_size": 2,
            "num_layers": 2,
            "mmdit_layers": 1,
            "time_embed_dim": 20,
            "text_embed_dim": 24,
        },
        arguments={
            "hidden_states": values(5, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 24),
        },
    ),
    Entry(
        name="ErnieImageTransformer2DModel",
        config={
            "hidden_size": 48,
            "num_attention_heads": 3,
            "num_layers": 2,
            "ffn_hidden_size": 56,
            "in_channels": 20,
            "out_channels": 20,
            "text_in_dim": 28,
            "rope_axes_dim": (4, 6, 6),
        },
        arguments={
            "hidden_states": values(20, "rows", "columns"),
            "timestep": time(),
            "text_bth": values("words", 28),
            "text_lens": places(lambda s: torch.tensor(s["words"]), batch="axis"),
        },
    ),
    Entry(
        name="FluxTransformer2DModel",
        config={
            "in_channels": 20,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 28,
            "pooled_projection_dim": 12,
            "guidance_embeds": True,
            "axes_dims_rope": (4, 6, 6),
        },
        arguments={
            "hidden_states": values("rows*columns", 20),
            "encoder_hidden_states": values("words", 28),
            "pooled_projections": values(12),
            "timestep": time(high=1.0),
            "img_ids": places(_flux_image),
            "txt_ids": places(lambda s: torch.zeros(s["words"], 3)),
            "guidance": time(high=10.0),
        },
    ),
    Entry(
        name="Flux2Transformer2DModel",
        config={
            "in_channels": 20,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 28,
            "timestep_guidance_channels": 24,
            "mlp_ratio": 2.0,
            "axes_dims_rope": (4, 4, 4, 4),
        },
        arguments={
            "hidden_states": values("rows*columns", 20),
            "encoder_hidden_states": values("words", 28),
            "timestep": time(high=1.0),
            "img_ids": places(_four_axes_image, batch="axis"),
            "txt_ids": places(_four_axes_text, batch="axis"),
            "guidance": time(high=10.0),
        },
    ),
    Entry(
        name="Flux3Transformer2DModel",
        config={
            "in_channels": 20,
            "cond_in_channels": 20,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 28,
            "timestep_channels": 24,
            "mlp_ratio": 2.0,
            "axes_dims_rope": (4, 4, 4, 4),
        },
        arguments={
            "hidden_states": values("rows*columns", 20),
            "encoder_hidden_states": values("words", 28),
            "timestep": time(high=1.0),
            "img_ids": places(lambda s: _four_axes_image(s) * 0.5),
            "txt_ids": places(lambda s: _four_axes_text(s).float()),
        },
    ),
    Entry(
        name="GlmImageTransformer2DModel",
        config={
            "in_channels": 5,
            "out_channels": 5,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "text_embed_dim": 24,
            "time_embed_dim": 20,
            "condition_dim": 8,
            "prior_vq_quantizer_codebook_size": 61,
        },
        arguments={
            "hidden_states": values(5, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 24),
            "prior_token_id": Argument(kind="classes", dims=("rows*columns",), high=61),
            "prior_token_drop": places(
                lambda s: torch.zeros(s["rows"] * s["columns"], dtype=torch.bool), batch="axis"
            ),
            "timestep": time(),
            "target_size": places(_pixels, batch="axis"),
            "crop_coords": places(_corner, batch="axis"),
        },
    ),
    Entry(
        name="HeliosTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 5,
            "out_channels": 5,
            "text_dim": 28,
            "freq_dim": 24,
            "ffn_dim": 56,
            "num_layers": 2,
            "rope_dim": (4, 6, 6),
        },
        arguments={
            "hidden_states": values(5, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 28),
            "indices_hidden_states": places(_helios_now, batch="axis"),
            "indices_latents_history_short": places(_helios_near, batch="axis"),
            "indices_latents_history_mid": _helios_places(1 + HELIOS_LONG, HELIOS_MIDDLE),
            "indices_latents_history_long": _helios_places(1, HELIOS_LONG),
            "latents_history_short": values(5, 1 + HELIOS_SHORT, "2*rows", "2*columns"),
            "latents_history_mid": values(5, HELIOS_MIDDLE, "2*rows", "2*columns"),
            "latents_history_long": values(5, HELIOS_LONG, "2*rows", "2*columns"),
        },
    ),
    # What is not square is padded to 20 x 20 tokens, with keys of zeros but values that count.
    # The layers of the Llama come before the batch.
    Entry(
        name="HiDreamImageTransformer2DModel",
        config={
            "patch_size": 2,
            "in_channels": 5,
            "out_channels": 5,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "caption_channels": [28, 36],
            "text_emb_dim": 12,
            "axes_dims_rope": (8, 4, 4),
            "max_resolution": (40, 40),
            "llama_layers": [0, 1],
        },
        arguments={
            "hidden_states": values(5, "2*rows", "2*columns"),
            "timesteps": time(),
            "encoder_hidden_states_t5": values("words", 28),
            "encoder_hidden_states_llama3": values(2, 1, "words", 36, batch="none"),
            "pooled_embeds": values(12),
        },
    ),
)

EXCLUDED: tuple[Excluded, ...] = ()
