"""Classes whose latent is a clip of positions [C, F, H, W] or [F, C, H, W], AnyFlow to Wan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from musiva.compiler.arguments import Argument, Sizes, given, mask, places, time, values
from musiva.models.captured.known.base import Config, Known, Signature, clip, frames_first

__all__ = ["KNOWN"]

# What CLIP makes of an image.
IMAGE_TOKENS = 257
# The number of words by which a class tells them from the tokens of an image before them.
WORDS = 512
# Frames of the past that Helios is given, from the farthest to the nearest.
LONG, MIDDLE, SHORT = 16, 2, 1


def _clip(c: Config) -> Argument:
    frames, patch, _ = c["patch_size"]
    return clip(c["in_channels"], patch, frames)


def _clip_of(c: Config, channels: int, frames: int | str) -> Argument:
    """Other channels, or another number of frames."""
    return values(channels, frames, *_clip(c).dims[2:])


def _chunks(sizes: Sizes) -> list[int]:
    return [1, sizes["frames"] - 1] if sizes["frames"] > 1 else [1]


def _helios_places(start: int, length: int) -> Argument:
    return places(lambda _: torch.arange(start, start + length), batch="axis")


def _helios_near(_: Sizes) -> Tensor:
    # The first frame of all is always there.
    last = 1 + LONG + MIDDLE
    return torch.tensor([0, *range(last, last + SHORT)])


def _helios_now(sizes: Sizes) -> Tensor:
    return 1 + LONG + MIDDLE + SHORT + torch.arange(sizes["frames"])


def _flight(sizes: Sizes, *, patch: tuple[int, int]) -> Tensor:
    """A camera that flies forward and turns: for each frame, camera to world, then the focal
    lengths and the centre of the image, in positions of the latent.
    """
    height, width = sizes["rows"] * patch[0], sizes["columns"] * patch[1]
    frames = torch.arange(sizes["frames"]).float()
    turns = 0.05 * frames
    poses = torch.eye(4).repeat(len(frames), 1, 1)
    poses[:, 0, 0] = poses[:, 2, 2] = turns.cos()
    poses[:, 0, 2] = turns.sin()
    poses[:, 2, 0] = -turns.sin()
    poses[:, 2, 3] = 0.1 * frames
    lens = torch.tensor([width, width, width / 2, height / 2])
    return torch.cat([poses.flatten(1), lens.expand(len(frames), 4)], dim=1)


def anyflow(c: Config) -> Signature:
    frames, patch, _ = c["patch_size"]
    return Signature(
        arguments={
            "hidden_states": frames_first(c["in_channels"], patch, frames),
            "timestep": time("frames"),
            "r_timestep": time("frames"),
            "encoder_hidden_states": values("words", c["text_dim"]),
        }
    )


def anyflow_far(c: Config) -> Signature:
    """Without a cache: the first frame, then all others at once."""
    found = anyflow(c)
    # What is context lies in larger patches.
    sides = zip(
        ("rows", "columns"), c["compressed_patch_size"][1:], c["patch_size"][1:], strict=True
    )
    return replace(
        found,
        arguments={**found.arguments, "chunk_partition": given(_chunks)},
        multiples={name: larger // patch for name, larger, patch in sides},
    )


def helios(c: Config) -> Signature:
    channels = c["in_channels"]
    arguments = {
        "hidden_states": _clip(c),
        "timestep": time(),
        "encoder_hidden_states": values("words", c["text_dim"]),
        "indices_hidden_states": places(_helios_now, batch="axis"),
    }
    if c["has_multi_term_memory_patch"]:
        arguments |= {
            "indices_latents_history_short": places(_helios_near, batch="axis"),
            "indices_latents_history_mid": _helios_places(1 + LONG, MIDDLE),
            "indices_latents_history_long": _helios_places(1, LONG),
            "latents_history_short": _clip_of(c, channels, 1 + SHORT),
            "latents_history_mid": _clip_of(c, channels, MIDDLE),
            "latents_history_long": _clip_of(c, channels, LONG),
        }
    return Signature(arguments=arguments)


def mochi(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": clip(c["in_channels"], c["patch_size"]),
            "encoder_hidden_states": values("words", c["text_embed_dim"]),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
        }
    )


def motif_video(c: Config) -> Signature:
    # Without an image to begin with, which the same weights take or leave.
    return Signature(
        arguments={
            "hidden_states": clip(c["in_channels"], c["patch_size"], c["patch_size_t"]),
            "timestep": time(),
            "encoder_hidden_states": values("words", c["text_embed_dim"]),
            "encoder_attention_mask": mask("words"),
        }
    )


def sana_video(c: Config) -> Signature:
    arguments = {
        "hidden_states": _clip(c),
        "encoder_hidden_states": values("words", c["caption_channels"]),
        "timestep": time(),
        "encoder_attention_mask": mask("words"),
    }
    if c["guidance_embeds"]:
        arguments["guidance"] = time(high=10.0 * c["guidance_embeds_scale"])
    return Signature(arguments=arguments)


def sana_wm(c: Config) -> Signature:
    frames, *patch = c["patch_size"]
    flight = partial(_flight, patch=(patch[0], patch[1]))
    arguments = {
        "hidden_states": _clip(c),
        "timestep": time(1, "frames"),
        "encoder_hidden_states": values(1, "words", c["caption_channels"]),
        "mask": mask("words"),
        "camera_conditions": places(flight, batch="axis"),
    }
    if c["use_chunk_plucker_post_attn"]:
        arguments["chunk_plucker"] = clip(c["chunk_plucker_channels"], patch[0], frames)
    return Signature(arguments=arguments)


def wan(c: Config) -> Signature:
    arguments = {
        "hidden_states": _clip(c),
        "timestep": time(),
        "encoder_hidden_states": values("words", c["text_dim"]),
    }
    dim, length = c["image_dim"], c["pos_embed_seq_len"]
    if dim is not None and length is None:
        arguments["encoder_hidden_states_image"] = values(IMAGE_TOKENS, dim)
    elif dim is not None:
        # The first image and the last one, which the class puts behind one another.
        image = values(2, length // 2, dim, batch="none")
        arguments["encoder_hidden_states_image"] = image
    fixed = {} if c["added_kv_proj_dim"] is None else {"words": WORDS}
    return Signature(arguments=arguments, fixed=fixed)


def skyreels_v2(c: Config) -> Signature:
    found = wan(c)
    block = c["num_frame_per_block"]
    multiples = {"frames": block} if block > 1 else {}
    if not c["inject_sample_info"]:
        return replace(found, multiples=multiples)
    # Diffusion forcing: a time for each frame. Of frames a second, 1 stands for 24.
    forcing = {
        "timestep": time("frames"),
        "enable_diffusion_forcing": given(lambda _: True),
        "fps": given(lambda _: [1]),
    }
    return replace(found, arguments={**found.arguments, **forcing}, multiples=multiples)


def wan_animate(c: Config) -> Signature:
    # Either may be left out: of the channels, the latent's twice and four of a mask.
    channels, latent = c["in_channels"], c["latent_channels"]
    latent = (channels - 4) // 2 if latent is None else latent
    found = wan({**c, "in_channels": 2 * latent + 4})
    side = c["motion_encoder_size"]
    clips = {
        "pose_hidden_states": _clip_of(c, latent, "frames-1"),
        # Every frame of the clip, without that of the character before it.
        "face_pixel_values": values(3, "4*frames-7", side, side),
    }
    return replace(found, arguments={**found.arguments, **clips})


def wan_vace(c: Config) -> Signature:
    found = wan(c)
    layers = len(c["vace_layers"])
    control = {
        "control_hidden_states": _clip_of(c, c["vace_in_channels"], "frames"),
        "control_hidden_states_scale": places(lambda _: torch.ones(layers)),
    }
    return replace(found, arguments={**found.arguments, **control})


KNOWN: Mapping[str, Known] = {
    "AnyFlowFARTransformer3DModel": anyflow_far,
    "AnyFlowTransformer3DModel": anyflow,
    "ChronoEditTransformer3DModel": wan,
    "HeliosTransformer3DModel": helios,
    "MochiTransformer3DModel": mochi,
    "MotifVideoTransformer3DModel": motif_video,
    "SanaVideoTransformer3DModel": sana_video,
    "SanaWMTransformer3DModel": sana_wm,
    "SkyReelsV2Transformer3DModel": skyreels_v2,
    "WanAnimateTransformer3DModel": wan_animate,
    "WanTransformer3DModel": wan,
    "WanVACETransformer3DModel": wan_vace,
}
