"""The classes of the oldest of the transformer files of diffusers, and Allegro."""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.compiler.arguments import Sizes, classes, given, mask, places, time, values
from musiva.perf.catalog.base import Entry, Excluded

__all__ = ["ENTRIES", "EXCLUDED"]


def _angles(positions: Tensor, dim: int, stretch: float = 1.0) -> Tensor:
    return torch.outer(positions, 1.0 / 10000.0 ** (torch.arange(0, dim, 2) / dim) / stretch)


def _turns(angles: Tensor) -> tuple[Tensor, Tensor]:
    doubled = angles.repeat_interleave(2, dim=-1)
    return doubled.cos(), doubled.sin()


def _ticks(begin: int, end: int, count: int) -> Tensor:
    return torch.linspace(begin, end * (count - 1) / count, count)


def _fitted(sizes: Sizes, base_rows: int, base_columns: int) -> tuple[Tensor, Tensor]:
    """Where rows and columns lie when the picture is scaled into the base one, and centred."""
    rows, columns = sizes["rows"], sizes["columns"]
    if rows * base_columns > columns * base_rows:
        height, width = base_rows, round(base_rows / rows * columns)
    else:
        height, width = round(base_columns / columns * rows), base_columns
    top, left = round((base_rows - height) / 2), round((base_columns - width) / 2)
    return _ticks(top, top + height, rows), _ticks(left, left + width, columns)


def _clip_turns(sizes: Sizes, base_rows: int, base_columns: int) -> tuple[Tensor, Tensor]:
    """CogVideoX's, of heads of 16 channels: 4 for the frame, 6 for the row, 6 for the column."""
    rows, columns = _fitted(sizes, base_rows, base_columns)
    frames = torch.arange(sizes["frames"], dtype=torch.float32)
    axes = (
        _angles(frames, 4)[:, None, None, :],
        _angles(rows, 6)[None, :, None, :],
        _angles(columns, 6)[None, None, :, :],
    )
    extents = (sizes["frames"], sizes["rows"], sizes["columns"], -1)
    return _turns(torch.cat([axis.expand(*extents) for axis in axes], dim=-1).flatten(0, 2))


def _hunyuan_turns(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Of heads of 12 channels: 6 for the column, then 6 for the row, of a base of 32 by 32."""
    rows, columns = _fitted(sizes, 32, 32)
    across = _angles(columns, 6)[None, :, :].expand(sizes["rows"], -1, -1)
    down = _angles(rows, 6)[:, None, :].expand(-1, sizes["columns"], -1)
    return _turns(torch.cat([across, down], dim=-1).flatten(0, 1))


def _hunyuan_meta(sizes: Sizes) -> Tensor:
    """Original size, target size, the crop's corner; in pixels."""
    return torch.tensor([1024, 1024, 16 * sizes["rows"], 16 * sizes["columns"], 0, 0]).float()


def _lumina_table(sizes: Sizes) -> Tensor:
    """The pipeline's whole table, of which the class cuts what it needs; heads of 8 channels."""
    count, quarter = 384, 2
    stretch = (sizes["rows"] * sizes["columns"]) ** 0.5 / 64
    angles = _angles(torch.arange(count, dtype=torch.float32), 2 * quarter, stretch)
    turns = torch.polar(torch.ones_like(angles), angles)
    down = turns[:, None, :, None].expand(count, count, quarter, 1)
    across = turns[None, :, :, None].expand(count, count, quarter, 1)
    return torch.cat([down, across], dim=-1).flatten(2)


def _allegro_turns(sizes: Sizes) -> tuple[tuple[tuple[Tensor, Tensor], ...], tuple[Tensor, ...]]:
    """Tables of frames, rows and columns, of 6 channels each, and which entries a token takes."""
    extents = (sizes["frames"], sizes["rows"], sizes["columns"])
    tables: list[tuple[Tensor, Tensor]] = []
    for extent, scale in zip(extents, (2.2, 2.0, 2.0), strict=True):
        angles = _angles(torch.arange(extent, dtype=torch.float32) / scale, 6).repeat(1, 2)
        tables.append((angles.cos(), angles.sin()))
    axes = torch.meshgrid(*(torch.arange(extent) for extent in extents), indexing="ij")
    return tuple(tables), tuple(axis.reshape(1, -1) for axis in axes)


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="AuraFlowTransformer2DModel",
        config={
            "sample_size": 16,
            "patch_size": 2,
            "in_channels": 11,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 2,
            "attention_head_dim": 14,
            "num_attention_heads": 2,
            "joint_attention_dim": 22,
            "caption_projection_dim": 28,
            "out_channels": 13,
            "pos_embed_max_size": 1024,
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(high=1.0),
        },
    ),
    Entry(
        name="CogVideoXTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 11,
            "out_channels": 13,
            "time_embed_dim": 20,
            "text_embed_dim": 22,
            "num_layers": 2,
            "sample_width": 18,
            "sample_height": 12,
            "sample_frames": 9,
            "use_rotary_positional_embeddings": True,
        },
        arguments={
            "hidden_states": values("frames", 11, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "image_rotary_emb": given(lambda sizes: _clip_turns(sizes, 6, 9)),
        },
    ),
    Entry(
        name="ConsisIDTransformer3DModel",
        config={
            "num_attention_heads": 3,
            "attention_head_dim": 16,
            "in_channels": 26,
            "out_channels": 13,
            "time_embed_dim": 20,
            "text_embed_dim": 22,
            "num_layers": 2,
            "sample_width": 18,
            "sample_height": 12,
            "sample_frames": 9,
            "use_rotary_positional_embeddings": True,
            "is_train_face": True,
            "cross_attn_interval": 2,
            "cross_attn_dim_head": 8,
            "cross_attn_num_heads": 2,
            "LFE_id_dim": 19,
            "LFE_vit_dim": 14,
            "LFE_depth": 2,
            "LFE_dim_head": 8,
            "LFE_num_heads": 2,
            "LFE_num_id_token": 3,
            "LFE_num_querie": 6,
            "LFE_output_dim": 32,
            "LFE_num_scale": 2,
        },
        arguments={
            "hidden_states": values("frames", 26, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "image_rotary_emb": given(lambda sizes: _clip_turns(sizes, 6, 9)),
            "id_cond": values(19),
            # A list of the two scales in the pipeline, each with the samples' axis first.
            "id_vit_hidden": values(2, 1, 17, 14, batch="none"),
        },
    ),
    Entry(
        name="DiTTransformer2DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 14,
            "in_channels": 11,
            "out_channels": 13,
            "num_layers": 2,
            "sample_size": 16,
            "num_embeds_ada_norm": 31,
        },
        arguments={
            # Square only: it takes the root of the number of tokens.
            "hidden_states": values(11, "2*rows", "2*columns"),
            "timestep": time(),
            "class_labels": classes(31),
        },
        same={"columns": "rows"},
    ),
    Entry(
        name="HunyuanDiT2DModel",
        config={
            "num_attention_heads": 3,
            "attention_head_dim": 12,
            "in_channels": 11,
            "patch_size": 2,
            "sample_size": 16,
            "hidden_size": 36,
            # The fewest with a skip connection.
            "num_layers": 4,
            "mlp_ratio": 2.0,
            "cross_attention_dim": 22,
            "cross_attention_dim_t5": 40,
            "pooled_projection_dim": 26,
            "text_len": 7,
            "text_len_t5": 9,
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 22),
            "text_embedding_mask": mask("words"),
            "encoder_hidden_states_t5": values("words_2", 40),
            "text_embedding_mask_t5": mask("words_2"),
            "image_meta_size": places(_hunyuan_meta, batch="axis"),
            "style": places(lambda _: torch.tensor(0), batch="axis"),
            "image_rotary_emb": given(_hunyuan_turns),
        },
        fixed={"words": 7, "words_2": 9},
    ),
    Entry(
        name="LatteTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 14,
            "in_channels": 11,
            "out_channels": 13,
            "num_layers": 2,
            "cross_attention_dim": 28,
            "attention_bias": True,
            "sample_size": 16,
            "patch_size": 2,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "norm_eps": 1e-6,
            "caption_channels": 22,
            "video_length": 3,
        },
        arguments={
            "hidden_states": values(11, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 22),
        },
        fixed={"frames": 3},
    ),
    Entry(
        name="LuminaNextDiT2DModel",
        config={
            "patch_size": 2,
            "in_channels": 11,
            "hidden_size": 32,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "multiple_of": 2,
            "cross_attention_dim": 22,
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values("words", 22),
            "encoder_mask": mask("words"),
            "image_rotary_emb": places(_lumina_table),
            "cross_attention_kwargs": given(lambda _: {"base_sequence_length": 4096}),
        },
    ),
    Entry(
        name="PixArtTransformer2DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 14,
            "in_channels": 11,
            "out_channels": 13,
            "num_layers": 2,
            "cross_attention_dim": 28,
            "sample_size": 16,
            "caption_channels": 22,
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        name="SanaTransformer2DModel",
        config={
            "in_channels": 11,
            "out_channels": 13,
            "num_attention_heads": 2,
            "attention_head_dim": 14,
            "num_layers": 2,
            "num_cross_attention_heads": 4,
            "cross_attention_head_dim": 7,
            "cross_attention_dim": 28,
            "caption_channels": 22,
            "sample_size": 16,
            "qk_norm": "rms_norm_across_heads",
        },
        arguments={
            "hidden_states": values(11, "rows", "columns"),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        # With patches: as old PixArt directories name it. Without, it is a block of U-Nets.
        name="Transformer2DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 14,
            "in_channels": 11,
            "out_channels": 13,
            "num_layers": 2,
            "cross_attention_dim": 28,
            "attention_bias": True,
            "sample_size": 16,
            "patch_size": 2,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "norm_eps": 1e-6,
            "caption_channels": 22,
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        name="AllegroTransformer3DModel",
        config={
            "num_attention_heads": 3,
            "attention_head_dim": 18,
            "in_channels": 11,
            "out_channels": 13,
            "num_layers": 2,
            "cross_attention_dim": 54,
            "sample_height": 12,
            "sample_width": 18,
            "sample_frames": 3,
            "caption_channels": 22,
        },
        arguments={
            "hidden_states": values(11, "frames", "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
            "image_rotary_emb": given(_allegro_turns),
        },
    ),
)

EXCLUDED: tuple[Excluded, ...] = (
    Excluded("AceStepTransformer1DModel", "It predicts music."),
    Excluded("DualTransformer2DModel", "A block of U-Nets, of two Transformer2DModel."),
    Excluded("MiniMaxMusic3RVQDepthDecoder", "It predicts codes of music."),
    Excluded("PriorTransformer", "It predicts an embedding of an image, not an image."),
    Excluded("StableAudioDiTModel", "It predicts audio."),
    Excluded("T5FilmDecoder", "It predicts spectrograms."),
    Excluded("DreamLiteTransformer2DModel", "A block of DreamLite's U-Net."),
)
