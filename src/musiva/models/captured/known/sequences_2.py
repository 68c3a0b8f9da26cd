"""Classes whose clip comes as a sequence of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from musiva.compiler.arguments import Argument, Sizes, given, mask, places, time, values
from musiva.models.captured.known.base import Config, Known, Signature, clip

__all__ = ["KNOWN"]

TOKENS = "frames*rows*columns"
# Frames a second of Cosmos 3 and of LTX 2.
FPS = 24.0
# LTX has 25 frames a second, and a token is 8 of them, and 32 x 32 pixels.
LTX_SCALE = (8 / 25, 32, 32)
# How long sound is, for each frame of latents: in LTX 2, and in MiniMax H3 for each of two ears.
LTX_SOUND, H3_SOUND = 7, 5
# MiniMax H3's kinds of tokens: of text, of sound, of the clip.
H3_KINDS = (1, 2, 0)
# Of five of its frames of latents the first is of one frame, the others are of four.
H3_FRAMES = (1, 4, 4, 4, 4)
# Its time has 40 ticks a second, of 24 frames, and its pictures are squares of this side.
H3_TICKS, H3_SIDE = 5 / 3, 32


def _axes(s: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    return torch.arange(s["frames"]), torch.arange(s["rows"]), torch.arange(s["columns"])


def _clip_length(s: Sizes) -> int:
    return s["frames"] * s["rows"] * s["columns"]


def _after_words(s: Sizes) -> Tensor:
    return s["words"] + torch.arange(_clip_length(s))


def _cosmos_3_places(c: Config, s: Sizes) -> Tensor:
    """Words on the diagonal; then the clip, in frames of the base rate, at a distance."""
    kind = torch.float32 if c["enable_fps_modulation"] else torch.int64
    speed = c["base_fps"] / FPS if c["enable_fps_modulation"] else 1
    start = s["words"] + c["unified_3d_mrope_temporal_modality_margin"]
    corner = 0 if c["unified_3d_mrope_reset_spatial_ids"] else start
    frames, rows, columns = _axes(s)
    times = (frames * speed + start).to(kind)
    inside = torch.cartesian_prod(times, (rows + corner).to(kind), (columns + corner).to(kind))
    words = torch.arange(s["words"], dtype=kind).expand(3, -1)
    return torch.cat([words, inside.T], dim=1)


def cosmos_3_omni(c: Config) -> Signature:
    """One packed sequence for each call: there is no axis of a batch."""
    latents = clip(c["latent_channel"], c["latent_patch_size"])
    return Signature(
        arguments={
            "input_ids": Argument(
                kind="classes", dims=("words",), batch="none", high=c["vocab_size"]
            ),
            "text_indexes": places(lambda s: torch.arange(s["words"])),
            "position_ids": places(partial(_cosmos_3_places, c)),
            "und_len": given(lambda s: s["words"]),
            "sequence_length": given(lambda s: s["words"] + _clip_length(s)),
            "vision_tokens": values(1, *latents.dims, batch="list"),
            "vision_token_shapes": given(lambda s: [(s["frames"], s["rows"], s["columns"])]),
            "vision_sequence_indexes": places(_after_words),
            "vision_mse_loss_indexes": places(_after_words),
            "vision_timesteps": Argument(kind="time", dims=(TOKENS,), batch="none", high=1000.0),
            "vision_noisy_frame_indexes": places(lambda s: torch.arange(s["frames"]), batch="list"),
        }
    )


def ltx_video(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "encoder_hidden_states": values("words", c["caption_channels"]),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
            "num_frames": given(lambda s: s["frames"]),
            "height": given(lambda s: s["rows"]),
            "width": given(lambda s: s["columns"]),
            "rope_interpolation_scale": given(lambda _: LTX_SCALE),
        }
    )


def _clip_bounds(c: Config, s: Sizes) -> Tensor:
    """Where the tokens of LTX 2 begin and end, in seconds and pixels. The first of the latents is
    of `causal_offset` frames.
    """
    patches = (c["patch_size_t"], c["patch_size"], c["patch_size"])
    scales = [
        float(patch * scale) for patch, scale in zip(patches, c["vae_scale_factors"], strict=True)
    ]
    starts = torch.cartesian_prod(*_axes(s)).T.float()
    bounds = torch.stack([starts, starts + 1], dim=-1) * torch.tensor(scales)[:, None, None]
    missing = c["vae_scale_factors"][0] - c["causal_offset"]
    return torch.cat([(bounds[:1] - missing).clamp(min=0) / FPS, bounds[1:]])


def _sound_bounds(c: Config, s: Sizes) -> Tensor:
    """Where the tokens of sound begin and end, in seconds."""
    step = c["audio_patch_size_t"] * c["audio_scale_factor"]
    missing = c["audio_scale_factor"] - c["causal_offset"]
    edges = (step * torch.arange(LTX_SOUND * s["frames"] + 1).float() - missing).clamp(min=0)
    edges = edges * c["audio_hop_length"] / c["audio_sampling_rate"]
    return torch.stack([edges[:-1], edges[1:]], dim=-1)[None]


def ltx_2_video(c: Config) -> Signature:
    # Without a projection in the class, text has the width that attention takes.
    projected = c["use_prompt_embeddings"]
    text = c["caption_channels"] if projected else c["cross_attention_dim"]
    sound_text = c["caption_channels"] if projected else c["audio_cross_attention_dim"]
    arguments = {
        "hidden_states": values(TOKENS, c["in_channels"]),
        "audio_hidden_states": values(f"{LTX_SOUND}*frames", c["audio_in_channels"]),
        "encoder_hidden_states": values("words", text),
        "audio_encoder_hidden_states": values("words", sound_text),
        "timestep": time(),
        "encoder_attention_mask": mask("words"),
        "audio_encoder_attention_mask": mask("words"),
        "video_coords": places(partial(_clip_bounds, c), batch="axis"),
        "audio_coords": places(partial(_sound_bounds, c), batch="axis"),
    }
    modulated = c["cross_attn_mod"] or c["audio_cross_attn_mod"]
    if modulated and c["use_prompt_adaln_single"]:
        arguments["sigma"] = time()
    return Signature(arguments=arguments)


def _h3_lengths(s: Sizes) -> tuple[int, int, int]:
    """How many tokens text, sound (of two ears) and clip have, which are in this order."""
    return s["words"], 2 * H3_SOUND * s["frames"], _clip_length(s)


def _h3_index(part: int) -> Argument:
    def make(s: Sizes) -> Tensor:
        lengths = _h3_lengths(s)
        start = sum(lengths[:part])
        return torch.arange(start, start + lengths[part])

    return places(make)


def _h3_tags(s: Sizes) -> Tensor:
    return torch.repeat_interleave(torch.tensor(H3_KINDS), torch.tensor(_h3_lengths(s)))


def _h3_places(c: Config, s: Sizes) -> Tensor:
    """Time, row and column: text and sound have a tick for each token, and an ear is at either
    side of the picture. In doubles, as time adds up.
    """
    words, sounds, _ = _h3_lengths(s)
    text = torch.nn.functional.pad(torch.arange(words).double()[:, None], (0, 2))
    down, across = _h3_picture(c, s)
    ticks = (words + torch.arange(sounds // 2).double()).repeat(2)
    ears = across[[0, -1]].repeat_interleave(sounds // 2)
    sound = torch.stack([ticks, torch.zeros_like(ticks), ears], dim=1)
    counts = [H3_FRAMES[frame % len(H3_FRAMES)] for frame in range(s["frames"])]
    spans = torch.tensor(counts).double() * H3_TICKS
    inside = torch.cartesian_prod(words + spans.cumsum(0) - spans, down, across)
    return torch.cat([text, sound, inside]).float()


def _h3_picture(c: Config, s: Sizes) -> tuple[Tensor, Tensor]:
    """Where rows and columns are when the picture has the area of the square, and its middle."""
    _, tall, wide = c["patch_size"]
    side = math.sqrt(tall * s["rows"] * wide * s["columns"])
    down, across = (
        H3_SIDE * (0.5 + patch * (torch.arange(count).double() - count / 2) / side)
        for patch, count in ((tall, s["rows"]), (wide, s["columns"]))
    )
    return down, across


def minimax_h3(c: Config) -> Signature:
    """One packed sequence of text, sound and clip."""
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"] * math.prod(c["patch_size"])),
            "audio_hidden_states": values(f"{2 * H3_SOUND}*frames", c["audio_in_channels"]),
            "encoder_hidden_states": values("words", c["text_dim"]),
            "timestep": time(high=1.0),
            "timestep_indices": places(lambda s: torch.zeros(sum(_h3_lengths(s))).long()),
            "token_tags": places(_h3_tags),
            "position_ids": places(partial(_h3_places, c)),
            "video_indices": _h3_index(2),
            "audio_indices": _h3_index(1),
            "text_indices": _h3_index(0),
        }
    )


def _refiner_angles(c: Config, s: Sizes) -> Tensor:
    """For each token, each pitch on the three axes."""
    bases = torch.tensor([c["pos_embed_max_pos"], c["base_height"], c["base_width"]])
    middles = _clip_bounds(c, s).mean(dim=-1).T / bases
    kind = torch.float64 if c["rope_double_precision"] else torch.float32
    channels = c["num_attention_heads"] * c["attention_head_dim"]
    pitches = c["rope_theta"] ** torch.linspace(0, 1, channels // 6, dtype=kind) * math.pi / 2
    return ((2 * middles[:, None] - 1) * pitches.float()[:, None]).flatten(1)


def _refiner_turns(c: Config, s: Sizes) -> tuple[Tensor, Tensor]:
    """Cosines and sines; the first channels, that the axes leave over, do not turn."""
    angles = _refiner_angles(c, s)
    heads, width = c["num_attention_heads"], c["attention_head_dim"]
    if c["rope_type"] == "interleaved":
        angles = angles.repeat_interleave(2, dim=1)
        angles = torch.nn.functional.pad(angles, (heads * width - angles.shape[1], 0))
    else:
        angles = torch.nn.functional.pad(angles, (heads * width // 2 - angles.shape[1], 0))
        angles = angles.unflatten(1, (heads, -1)).transpose(0, 1)
    return angles.cos()[None], angles.sin()[None]


def sana_wm_ltx_2_refiner(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "encoder_hidden_states": values("words", c["caption_channels"]),
            "timestep": time(TOKENS, high=float(c["timestep_scale_multiplier"])),
            "video_rotary_emb": given(partial(_refiner_turns, c)),
            "encoder_attention_mask": mask("words"),
        }
    )


KNOWN: Mapping[str, Known] = {
    "Cosmos3OmniTransformer": cosmos_3_omni,
    "LTX2VideoTransformer3DModel": ltx_2_video,
    "LTXVideoTransformer3DModel": ltx_video,
    "MiniMaxH3Transformer3DModel": minimax_h3,
    "SanaWMLTX2RefinerTransformer3DModel": sana_wm_ltx_2_refiner,
}
