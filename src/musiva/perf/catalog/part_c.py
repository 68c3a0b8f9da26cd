"""Diffusers' transformer classes, from LTX to Qwen-Image 2.1."""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.compiler.arguments import Argument, Sizes, given, mask, places, time, values
from musiva.perf.catalog.base import Entry, Excluded

__all__ = ["ENTRIES", "EXCLUDED", "clip_bounds"]


def clip_bounds(s: Sizes) -> Tensor:
    """Where the tokens of LTX 2 begin and end, in seconds and pixels: a token is 8 frames of 24 a
    second (the first ones a single frame) and 32 x 32 pixels.
    """
    axes = (torch.arange(s[name]).float() for name in ("frames", "rows", "columns"))
    starts = torch.cartesian_prod(*axes).T
    bounds = torch.stack([starts, starts + 1], dim=-1) * torch.tensor([8.0, 32, 32])[:, None, None]
    seconds = (bounds[:1] - 7).clamp(min=0) / 24
    return torch.cat([seconds, bounds[1:]])


def _sound_bounds(s: Sizes) -> Tensor:
    edges = (4 * torch.arange(7 * s["frames"] + 1).float() - 3).clamp(min=0) / 100
    return torch.stack([edges[:-1], edges[1:]], dim=-1)[None]


def _grid(s: Sizes) -> Tensor:
    return torch.cartesian_prod(torch.arange(s["rows"]), torch.arange(s["columns"])).float()


def _h3_lengths(s: Sizes) -> tuple[int, int, int]:
    """How many tokens text, sound (two channels) and clip have, which are in this order."""
    return s["words"], 10 * s["frames"], s["frames"] * s["rows"] * s["columns"]


def _h3_index(part: int) -> Argument:
    def make(s: Sizes) -> Tensor:
        lengths = _h3_lengths(s)
        start = sum(lengths[:part])
        return torch.arange(start, start + lengths[part])

    return places(make)


def _h3_tags(s: Sizes) -> Tensor:
    return torch.repeat_interleave(torch.tensor([1, 2, 0]), torch.tensor(_h3_lengths(s)))


def _h3_places(s: Sizes) -> Tensor:
    words, sounds, _ = _h3_lengths(s)
    text = torch.arange(words).float()[:, None] * torch.tensor([1.0, 0, 0])
    side = (s["rows"] * s["columns"]) ** 0.5
    down, across = (
        32 * (0.5 + (torch.arange(s[name]) - s[name] / 2) / side) for name in ("rows", "columns")
    )
    ticks = (words + torch.arange(sounds // 2).float()).repeat(2)
    ears = across[[0, -1]].repeat_interleave(sounds // 2)
    sound = torch.stack([ticks, torch.zeros(sounds), ears], dim=1)
    # The first latent frame of five is of one frame, the others are of four.
    spans = torch.tensor([(4.0 if frame % 5 else 1.0) * 5 / 3 for frame in range(s["frames"])])
    clip = torch.cartesian_prod(words + spans.cumsum(0) - spans, down, across)
    return torch.cat([text, sound, clip])


def _omnigen_length(s: Sizes) -> int:
    """Words, a token of the timestep, and the image."""
    return s["words"] + 1 + s["rows"] * s["columns"]


def _omnigen_mask(s: Sizes) -> Tensor:
    before = s["words"] + 1
    allowed = torch.ones(_omnigen_length(s), _omnigen_length(s))
    return torch.cat([allowed[:before].tril(), allowed[before:]])


def _ovis_text(s: Sizes) -> Tensor:
    return torch.arange(s["words"]).float()[:, None] * torch.tensor([0.0, 1, 1])


def _ovis_image(s: Sizes) -> Tensor:
    return torch.nn.functional.pad(_grid(s), (1, 0))


def _qwen21_slots(s: Sizes) -> Tensor:
    """The words, then one slot for each 2 x 2 tokens of the image."""
    return torch.arange(s["words"] + s["rows"] * s["columns"] // 4) >= s["words"]


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="LTXVideoTransformer3DModel",
        config={
            "in_channels": 11,
            "out_channels": 11,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "num_layers": 2,
            "caption_channels": 22,
        },
        arguments={
            "hidden_states": values("frames*rows*columns", 11),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
            "num_frames": given(lambda s: s["frames"]),
            "height": given(lambda s: s["rows"]),
            "width": given(lambda s: s["columns"]),
            "rope_interpolation_scale": given(lambda _: (8 / 25, 32, 32)),
        },
    ),
    Entry(
        name="LTX2VideoTransformer3DModel",
        config={
            "in_channels": 11,
            "out_channels": 11,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "gated_attn": True,
            "cross_attn_mod": True,
            "audio_in_channels": 13,
            "audio_out_channels": 13,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 8,
            "audio_cross_attention_dim": 16,
            "audio_gated_attn": True,
            "audio_cross_attn_mod": True,
            "num_layers": 2,
            "caption_channels": 22,
            "rope_type": "split",
        },
        arguments={
            "hidden_states": values("frames*rows*columns", 11),
            "audio_hidden_states": values("7*frames", 13),
            "encoder_hidden_states": values("words", 22),
            "audio_encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "sigma": time(),
            "encoder_attention_mask": mask("words"),
            "audio_encoder_attention_mask": mask("words"),
            "video_coords": places(clip_bounds, batch="axis"),
            "audio_coords": places(_sound_bounds, batch="axis"),
        },
    ),
    Entry(
        name="Lumina2Transformer2DModel",
        config={
            "sample_size": 16,
            "in_channels": 11,
            "hidden_size": 32,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 20,
            "axes_dim_rope": (4, 6, 6),
            "cap_feat_dim": 22,
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values("words", 22),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        name="MiniMaxH3Transformer3DModel",
        config={
            "num_attention_heads": 3,
            "attention_head_dim": 16,
            "hidden_size": 40,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "ffn_dim": 52,
            "in_channels": 11,
            "audio_in_channels": 13,
            "text_dim": 22,
            "freq_dim": 20,
            "time_embed_hidden_dim": 36,
            "time_embed_dim": 28,
            "rope_freq_dim": 2,
        },
        arguments={
            "hidden_states": values("frames*rows*columns", 44),
            "audio_hidden_states": values("10*frames", 13),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(high=1.0),
            "timestep_indices": places(lambda s: torch.zeros(sum(_h3_lengths(s))).long()),
            "token_tags": places(_h3_tags),
            "position_ids": places(_h3_places),
            "video_indices": _h3_index(2),
            "audio_indices": _h3_index(1),
            "text_indices": _h3_index(0),
        },
    ),
    Entry(
        name="MochiTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "pooled_projection_dim": 26,
            "in_channels": 11,
            # Its pooling of text has 8 heads, always.
            "text_embed_dim": 40,
            "time_embed_dim": 20,
        },
        arguments={
            "hidden_states": values(11, "frames", "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 40),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        name="MotifVideoTransformer3DModel",
        config={
            "in_channels": 23,
            "out_channels": 11,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 1,
            "num_single_layers": 2,
            "num_decoder_layers": 1,
            "text_embed_dim": 22,
            "rope_axes_dim": (4, 6, 6),
            "enable_text_cross_attention_dual": True,
            "enable_text_cross_attention_single": True,
        },
        arguments={
            "hidden_states": values(23, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 22),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        name="NucleusMoEImageTransformer2DModel",
        config={
            "in_channels": 44,
            "out_channels": 11,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "joint_attention_dim": 22,
            "axes_dims_rope": (4, 6, 6),
            # The width of a dense MLP is rounded down to a multiple of 128: 4.0 would leave none.
            "mlp_ratio": 6.0,
            "dense_moe_strategy": "leave_first_block_dense",
            "num_experts": 4,
            "moe_intermediate_dim": 20,
            "capacity_factors": 2.0,
        },
        arguments={
            "hidden_states": values("rows*columns", 44),
            "img_shapes": given(lambda s: [(1, s["rows"], s["columns"])]),
            "encoder_hidden_states": values("words", 22),
            "encoder_hidden_states_mask": mask("words"),
            "timestep": time(high=1.0),
        },
    ),
    Entry(
        name="OmniGenTransformer2DModel",
        config={
            "in_channels": 11,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 52,
            "num_layers": 2,
            "pad_token_id": 2,
            "vocab_size": 61,
            "rope_scaling": {
                "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
                "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5],
            },
            "pos_embed_max_size": 96,
            "time_step_dim": 20,
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "timestep": time(high=1.0),
            "input_ids": Argument(kind="classes", dims=("words",), high=61),
            "input_img_latents": given(lambda _: []),
            "input_image_sizes": given(lambda _: {}),
            "attention_mask": places(_omnigen_mask, batch="axis"),
            "position_ids": places(lambda s: torch.arange(_omnigen_length(s)), batch="axis"),
        },
    ),
    Entry(
        name="OvisImageTransformer2DModel",
        config={
            "in_channels": 44,
            "out_channels": 44,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 22,
            "axes_dims_rope": (4, 6, 6),
        },
        arguments={
            "hidden_states": values("rows*columns", 44),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(high=1.0),
            "img_ids": places(_ovis_image),
            "txt_ids": places(_ovis_text),
        },
    ),
    Entry(
        name="PRXTransformer2DModel",
        config={
            "in_channels": 11,
            "context_in_dim": 22,
            "hidden_size": 32,
            "num_heads": 2,
            "depth": 2,
            "axes_dim": [8, 8],
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values("words", 22),
            "attention_mask": mask("words"),
        },
    ),
    Entry(
        name="QwenImageTransformer2DModel",
        config={
            "in_channels": 44,
            "out_channels": 11,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 22,
            "axes_dims_rope": (4, 6, 6),
        },
        arguments={
            "hidden_states": values("rows*columns", 44),
            "encoder_hidden_states": values("words", 22),
            "encoder_hidden_states_mask": mask("words"),
            "timestep": time(high=1.0),
            "img_shapes": given(lambda s: [[(1, s["rows"], s["columns"])]]),
        },
    ),
    # Its output has the words too, before the image.
    Entry(
        name="QwenImage21Transformer2DModel",
        config={
            "in_channels": 11,
            "out_channels": 11,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "context_in_dim": 22,
            "axes_dims_rope": (4, 6, 6),
        },
        arguments={
            "hidden_states": values("rows*columns", 11),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(high=1.0),
            "img_shapes": given(lambda s: [[(1, s["rows"], s["columns"])]]),
            "img_mask": places(_qwen21_slots, batch="axis"),
            "encoder_hidden_states_mask": mask("words"),
        },
        multiples={"rows": 2, "columns": 2},
    ),
)

EXCLUDED: tuple[Excluded, ...] = (
    Excluded("MiniMaxMusic3Transformer1DModel", "It predicts music."),
)
