"""Diffusers' transformer classes, from RFD 4 to Z-Image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from musiva.compiler.arguments import Sizes, given, mask, places, time, values
from musiva.perf.catalog.base import Entry, Excluded
from musiva.perf.catalog.part_c import clip_bounds

__all__ = ["ENTRIES", "EXCLUDED"]


def _flight(s: Sizes) -> Tensor:
    """A camera that flies forward and turns: for each frame, camera to world, then the focal
    lengths and the centre of the image, in tokens.
    """
    frames = torch.arange(s["frames"]).float()
    turns = 0.05 * frames
    poses = torch.eye(4).repeat(s["frames"], 1, 1)
    poses[:, 0, 0] = poses[:, 2, 2] = turns.cos()
    poses[:, 0, 2] = turns.sin()
    poses[:, 2, 0] = -turns.sin()
    poses[:, 2, 3] = 0.1 * frames
    lens = torch.tensor([s["columns"], s["columns"], s["columns"] / 2, s["rows"] / 2])
    return torch.cat([poses.flatten(1), lens.expand(s["frames"], 4)], dim=1)


def _refiner_turns(s: Sizes) -> tuple[Tensor, Tensor]:
    """Cosines and sines for 32 channels, the first 2 of which do not turn."""
    middles = clip_bounds(s).mean(dim=-1).T / torch.tensor([20.0, 2048, 2048])
    pitches = math.pi / 2 * 10000.0 ** torch.linspace(0, 1, 5, dtype=torch.float64)
    angles = (2 * middles[:, None] - 1) * pitches.float()[:, None]
    angles = torch.nn.functional.pad(angles.flatten(1).repeat_interleave(2, dim=1), (2, 0))
    return angles.cos()[None], angles.sin()[None]


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="SanaVideoTransformer3DModel",
        config={
            "in_channels": 11,
            "out_channels": 11,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": 22,
        },
        arguments={
            "hidden_states": values(11, "frames", "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        name="SanaWMTransformer3DModel",
        config={
            "in_channels": 11,
            "num_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "softmax_every_n": 2,
            "linear_head_dim": 16,
            "chunk_plucker_channels": 13,
            "caption_channels": 22,
        },
        arguments={
            "hidden_states": values(11, "frames", "rows", "columns"),
            "timestep": time(1, "frames"),
            "encoder_hidden_states": values(1, "words", 22),
            "mask": mask("words"),
            "camera_conditions": places(_flight, batch="axis"),
            "chunk_plucker": values(13, "frames", "rows", "columns"),
        },
    ),
    Entry(
        name="SanaWMLTX2RefinerTransformer3DModel",
        config={
            "in_channels": 11,
            "out_channels": 11,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "cross_attention_dim": 32,
            "audio_in_channels": 13,
            "audio_out_channels": 13,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 8,
            "audio_cross_attention_dim": 16,
            "num_layers": 2,
            "caption_channels": 22,
        },
        arguments={
            "hidden_states": values("frames*rows*columns", 11),
            "encoder_hidden_states": values("words", 22),
            "timestep": time("frames*rows*columns"),
            "video_rotary_emb": given(_refiner_turns),
            "encoder_attention_mask": mask("words"),
        },
    ),
    Entry(
        name="SD3Transformer2DModel",
        config={
            "sample_size": 16,
            "in_channels": 11,
            "num_layers": 3,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 22,
            "caption_projection_dim": 32,
            "pooled_projection_dim": 26,
            "out_channels": 11,
            "dual_attention_layers": (0,),
            "qk_norm": "rms_norm",
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "encoder_hidden_states": values("words", 22),
            "pooled_projections": values(26),
            "timestep": time(),
        },
    ),
    Entry(
        name="SkyReelsV2Transformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 11,
            "out_channels": 11,
            "text_dim": 22,
            "freq_dim": 20,
            "ffn_dim": 52,
            "num_layers": 2,
        },
        arguments={
            "hidden_states": values(11, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 22),
        },
    ),
    Entry(
        name="WanTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 11,
            "out_channels": 11,
            "text_dim": 22,
            "freq_dim": 20,
            "ffn_dim": 52,
            "num_layers": 2,
        },
        arguments={
            "hidden_states": values(11, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 22),
        },
    ),
    # 512 words are taken from the end of text and image together, whatever there is.
    Entry(
        name="WanAnimateTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 26,
            "latent_channels": 11,
            "out_channels": 11,
            "text_dim": 22,
            "freq_dim": 20,
            "ffn_dim": 52,
            "num_layers": 2,
            "image_dim": 18,
            "added_kv_proj_dim": 32,
            "motion_encoder_channel_sizes": {"4": 14, "8": 12},
            "motion_encoder_size": 8,
            "motion_style_dim": 17,
            "motion_dim": 19,
            "motion_encoder_dim": 34,
            "face_encoder_hidden_dim": 15,
            "face_encoder_num_heads": 2,
            "inject_face_latents_blocks": 2,
        },
        arguments={
            "hidden_states": values(26, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 22),
            "encoder_hidden_states_image": values(13, 18),
            "pose_hidden_states": values(11, "frames-1", "2*rows", "2*columns"),
            "face_pixel_values": values(3, "4*frames-7", 8, 8),
        },
        fixed={"words": 512},
    ),
    Entry(
        name="WanVACETransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 11,
            "out_channels": 11,
            "text_dim": 22,
            "freq_dim": 20,
            "ffn_dim": 52,
            "num_layers": 3,
            "vace_layers": [0, 2],
            "vace_in_channels": 13,
        },
        arguments={
            "hidden_states": values(11, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 22),
            "control_hidden_states": values(13, "frames", "2*rows", "2*columns"),
            "control_hidden_states_scale": places(lambda _: torch.ones(2)),
        },
    ),
    Entry(
        name="ZImageTransformer2DModel",
        config={
            "in_channels": 11,
            "dim": 32,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 22,
            "axes_dims": [4, 6, 6],
            "axes_lens": [512, 128, 128],
        },
        arguments={
            "x": values(11, 1, "2*rows", "2*columns", batch="list"),
            "t": time(high=1.0),
            "cap_feats": values("words", 22, batch="list"),
        },
    ),
)

EXCLUDED: tuple[Excluded, ...] = (
    Excluded("RFD4ProteinaTransformer", "It predicts proteins."),
    Excluded("StableAudio3DiTModel", "It predicts sound."),
    Excluded("TransformerTemporalModel", "It is a layer of U-Nets, not a model by itself."),
    Excluded(
        "WanAnimate2Transformer3DModel",
        "It predicts only against keys and values that an earlier pass of it has left, by a "
        "compiled flex attention.",
    ),
)
