"""Diffusers' transformer classes, from HunyuanVideo to LongCat-Image."""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.compiler.arguments import Sizes, given, mask, places, time, values
from musiva.perf.catalog.base import Entry, Excluded

__all__ = ["ENTRIES", "EXCLUDED"]

# What the image encoder makes of an image.
IMAGE_TOKENS = 13
# Frames of the past that FramePack is given, from the nearest to the farthest.
NEAR, MIDDLE, FAR = 1, 2, 16
# Ideogram's kinds of tokens, and where its images begin.
IDEOGRAM_IMAGE, IDEOGRAM_TEXT, IDEOGRAM_START = 2, 3, 65536
# LongCat's images begin where the longest text ends.
LONGCAT_START = 512


def _grid(height: int, width: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(height), torch.arange(width))


def _framepack_clean(s: Sizes) -> Tensor:
    # The first frame of all is always there; the pipeline goes back in time.
    after = 1 + s["frames"]
    return torch.tensor([0, *range(after, after + NEAR)])


def _framepack_middle(s: Sizes) -> Tensor:
    return 1 + s["frames"] + NEAR + torch.arange(MIDDLE)


def _framepack_far(s: Sizes) -> Tensor:
    return 1 + s["frames"] + NEAR + MIDDLE + torch.arange(FAR)


def _ideogram_places(s: Sizes) -> Tensor:
    text = torch.arange(s["words"])[:, None].expand(-1, 3)
    grid = _grid(s["rows"], s["columns"])
    zeros = torch.zeros(len(grid), 1, dtype=grid.dtype)
    return torch.cat([text, torch.cat([zeros, grid], dim=1) + IDEOGRAM_START])


def _ideogram_segments(s: Sizes) -> Tensor:
    return torch.ones(s["words"] + s["rows"] * s["columns"], dtype=torch.int64)


def _ideogram_kinds(s: Sizes) -> Tensor:
    kinds = torch.full((s["words"] + s["rows"] * s["columns"],), IDEOGRAM_IMAGE)
    kinds[: s["words"]] = IDEOGRAM_TEXT
    return kinds


def _krea_places(s: Sizes) -> Tensor:
    grid = _grid(s["rows"], s["columns"]).float()
    image = torch.cat([torch.zeros(len(grid), 1), grid], dim=1)
    return torch.cat([torch.zeros(s["words"], 3), image])


def _longcat_image(s: Sizes) -> Tensor:
    grid = _grid(s["rows"], s["columns"]).float() + LONGCAT_START
    return torch.cat([torch.ones(len(grid), 1), grid], dim=1)


def _longcat_text(s: Sizes) -> Tensor:
    words = torch.arange(s["words"], dtype=torch.float32)
    return torch.stack([torch.zeros(s["words"]), words, words], dim=1)


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="HunyuanVideoTransformer3DModel",
        config={
            "in_channels": 5,
            "out_channels": 5,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": 28,
            "pooled_projection_dim": 12,
            "rope_axes_dim": (4, 6, 6),
        },
        arguments={
            "hidden_states": values(5, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 28),
            "encoder_attention_mask": mask("words"),
            "pooled_projections": values(12),
            "guidance": time(high=10000.0),
        },
    ),
    # Of the channels, 5 are the noisy clip, 5 the image to begin with, and one says where it is.
    Entry(
        name="HunyuanVideo15Transformer3DModel",
        config={
            "in_channels": 11,
            "out_channels": 5,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": 28,
            "text_embed_2_dim": 36,
            "image_embed_dim": 20,
            "rope_axes_dim": (4, 6, 6),
        },
        arguments={
            "hidden_states": values(11, "frames", "rows", "columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 28),
            "encoder_attention_mask": mask("words"),
            "encoder_hidden_states_2": values("words_2", 36),
            "encoder_attention_mask_2": mask("words_2"),
            "image_embeds": values(IMAGE_TOKENS, 20),
        },
    ),
    Entry(
        name="HunyuanVideoFramepackTransformer3DModel",
        config={
            "in_channels": 5,
            "out_channels": 5,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": 28,
            "pooled_projection_dim": 12,
            "rope_axes_dim": (4, 6, 6),
            "has_image_proj": True,
            "image_proj_dim": 20,
            "has_clean_x_embedder": True,
        },
        arguments={
            "hidden_states": values(5, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 28),
            "encoder_attention_mask": mask("words"),
            "pooled_projections": values(12),
            "image_embeds": values(IMAGE_TOKENS, 20),
            "indices_latents": places(lambda s: 1 + torch.arange(s["frames"])),
            "guidance": time(high=10000.0),
            "latents_clean": values(5, 1 + NEAR, "2*rows", "2*columns"),
            "indices_latents_clean": places(_framepack_clean),
            "latents_history_2x": values(5, MIDDLE, "2*rows", "2*columns"),
            "indices_latents_history_2x": places(_framepack_middle),
            "latents_history_4x": values(5, FAR, "2*rows", "2*columns"),
            "indices_latents_history_4x": places(_framepack_far),
        },
    ),
    Entry(
        name="HunyuanImageTransformer2DModel",
        config={
            "in_channels": 20,
            "out_channels": 20,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "text_embed_dim": 28,
            "text_embed_2_dim": 36,
            "rope_axes_dim": (8, 8),
        },
        arguments={
            "hidden_states": values(20, "rows", "columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 28),
            "encoder_attention_mask": mask("words"),
            "encoder_hidden_states_2": values("words_2", 36),
            "encoder_attention_mask_2": mask("words_2"),
        },
    ),
    Entry(
        name="Ideogram4Transformer2DModel",
        config={
            "in_channels": 20,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "intermediate_size": 56,
            "adaln_dim": 12,
            "llm_features_dim": 28,
            "mrope_section": (4, 2, 2),
        },
        arguments={
            "hidden_states": values("words+rows*columns", 20),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values("words+rows*columns", 28),
            "position_ids": places(_ideogram_places, batch="axis"),
            "segment_ids": places(_ideogram_segments, batch="axis"),
            "indicator": places(_ideogram_kinds, batch="axis"),
        },
    ),
    # The image to be edited and the one to be made, each of one frame.
    Entry(
        name="JoyImageEditTransformer3DModel",
        config={
            "in_channels": 5,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "text_dim": 28,
            "mlp_width_ratio": 2.0,
            "num_layers": 2,
            "rope_dim_list": [4, 6, 6],
        },
        arguments={
            "hidden_states": values("items", 5, 1, "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 28),
        },
        fixed={"items": 2},
    ),
    # The image to be made, then one to be edited.
    Entry(
        name="JoyImageEditPlusTransformer3DModel",
        config={
            "in_channels": 5,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "text_dim": 28,
            "mlp_width_ratio": 2.0,
            "num_layers": 2,
            "rope_dim_list": [4, 6, 6],
        },
        arguments={
            "hidden_states": values("2*rows*columns", 5, 1, 2, 2),
            "timestep": time(),
            "encoder_hidden_states": values("words", 28),
            "encoder_hidden_states_mask": mask("words"),
            "shape_list": given(lambda s: [[(1, s["rows"], s["columns"])] * 2]),
        },
    ),
    # Of the channels, 4 are the noisy clip, 4 an image to begin with, and one says where it is.
    Entry(
        name="Kandinsky5Transformer3DModel",
        config={
            "in_visual_dim": 4,
            "in_text_dim": 28,
            "in_text_dim2": 12,
            "time_dim": 24,
            "out_visual_dim": 4,
            "model_dim": 32,
            "ff_dim": 56,
            "num_text_blocks": 1,
            "num_visual_blocks": 2,
            "axes_dims": (4, 6, 6),
            "visual_cond": True,
        },
        arguments={
            "hidden_states": values("frames", "2*rows", "2*columns", 9),
            "encoder_hidden_states": values("words", 28),
            "timestep": time(),
            "pooled_projections": values(12),
            "visual_rope_pos": given(
                lambda s: [torch.arange(s[name]) for name in ("frames", "rows", "columns")]
            ),
            "text_rope_pos": places(lambda s: torch.arange(s["words"])),
            "scale_factor": given(lambda _: (1.0, 2.0, 2.0)),
        },
    ),
    # It makes sound too, of a length that depends on the number of frames.
    Entry(
        name="Kandinsky6Transformer3DModel",
        config={
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "in_text_dim": 28,
            "in_text_dim2": 12,
            "time_dim": 24,
            "model_dim": 32,
            "ff_dim": 56,
            "num_text_blocks": 1,
            "num_visual_blocks": 2,
            "axes_dims": (4, 6, 6),
            "in_audio_dim": 10,
            "out_audio_dim": 10,
            "model_dim_a": 48,
            "time_dim_a": 20,
            "ff_dim_a": 40,
            "text_token_padding": True,
            "ca_rope": True,
            "cross_gates": True,
            "fix_modulation": True,
        },
        arguments={
            "hidden_states": values("frames", "2*rows", "2*columns", 9),
            "encoder_hidden_states": values("words", 28),
            "pooled_projections": values(12),
            "timestep": time(),
            "audio_hidden_states": values("3*frames", 10),
        },
    ),
    Entry(
        name="Kandinsky6SRTransformer3DModel",
        config={
            "in_visual_dim": 4,
            "out_visual_dim": 12,
            "time_dim": 24,
            "model_dim": 32,
            "ff_dim": 56,
            "num_visual_blocks": 2,
            "axes_dims": (4, 6, 6),
            "nabla_window": (3, 3, 3),
        },
        arguments={
            "hidden_states": values("frames", "rows", "columns", 9),
            "timestep": time(),
        },
        multiples={"rows": 8, "columns": 8},
    ),
    Entry(
        name="Krea2Transformer2DModel",
        config={
            "in_channels": 20,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 56,
            "timestep_embed_dim": 24,
            "text_hidden_dim": 28,
            "num_text_layers": 3,
            "text_num_attention_heads": 2,
            "text_num_key_value_heads": 2,
            "text_intermediate_size": 36,
            "num_layerwise_text_blocks": 1,
            "num_refiner_text_blocks": 1,
            "axes_dims_rope": (4, 6, 6),
        },
        arguments={
            "hidden_states": values("rows*columns", 20),
            "encoder_hidden_states": values("words", 3, 28),
            "timestep": time(high=1.0),
            "position_ids": places(_krea_places),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        name="LongCatImageTransformer2DModel",
        config={
            "in_channels": 20,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 28,
            "pooled_projection_dim": 28,
            "axes_dims_rope": [4, 6, 6],
        },
        arguments={
            "hidden_states": values("rows*columns", 20),
            "encoder_hidden_states": values("words", 28),
            "timestep": time(high=1.0),
            "img_ids": places(_longcat_image),
            "txt_ids": places(_longcat_text),
        },
    ),
)

EXCLUDED: tuple[Excluded, ...] = (
    Excluded("LongCatAudioDiTTransformer", "It predicts sound, neither an image nor a clip."),
)
