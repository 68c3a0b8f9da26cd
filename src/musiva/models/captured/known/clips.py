"""Classes whose latent is a clip of positions [C, F, H, W] or [F, C, H, W], Allegro to Latte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from musiva.compiler.arguments import Argument, Sizes, given, mask, places, time, values
from musiva.models.captured.known.base import Config, Known, Signature, clip, frames_first

__all__ = ["KNOWN"]

AXES = ("frames", "rows", "columns")
# A side of what a position of a latent becomes, where the class is told of pixels.
PIXELS = 8
# What the image encoders make of an image: SigLIP's, and the one that ConsisID has for faces.
IMAGE_TOKENS, FACE_TOKENS = 729, 577
# Frames of the past that FramePack is given, from the nearest to the farthest.
NEAR, MIDDLE, FAR = 1, 2, 16
# The image to be edited and the one to be made.
JOY_IMAGES = 2
# A side of the blocks of Kandinsky's sparse attention, in tokens.
BLOCK = 8
# A latent of Kandinsky's sound is 1024 of 44100 samples a second: 7.2 for four frames of 24.
SOUNDS = 7


def _angles(positions: Tensor, dim: int) -> Tensor:
    return torch.outer(positions, 1.0 / 10000.0 ** (torch.arange(0, dim, 2) / dim))


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


def _cogvideox_turns(
    sizes: Sizes, *, dim: int, base: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """Of a head's channels, a quarter for the frame, the others for row and column. base: rows and
    columns that a picture is scaled into; None where it lies as it is.
    """
    frames, rows, columns = (torch.arange(sizes[name], dtype=torch.float32) for name in AXES)
    if base is not None:
        rows, columns = _fitted(sizes, *base)
    axes = (
        _angles(frames, dim // 4)[:, None, None, :],
        _angles(rows, dim // 8 * 3)[None, :, None, :],
        _angles(columns, dim // 8 * 3)[None, None, :, :],
    )
    extents = (len(frames), len(rows), len(columns), -1)
    angles = torch.cat([axis.expand(*extents) for axis in axes], dim=-1).flatten(0, 2)
    doubled = angles.repeat_interleave(2, dim=-1)
    return doubled.cos(), doubled.sin()


def _allegro_turns(
    sizes: Sizes, *, dim: int, scales: tuple[float, ...]
) -> tuple[tuple[tuple[Tensor, Tensor], ...], tuple[Tensor, ...]]:
    """Tables of frames, rows and columns, a third of a head's channels each, and which entries a
    token takes.
    """
    extents = [sizes[name] for name in AXES]
    tables: list[tuple[Tensor, Tensor]] = []
    for extent, scale in zip(extents, scales, strict=True):
        positions = torch.arange(extent, dtype=torch.float32) / scale
        angles = _angles(positions, dim // 3).repeat(1, 2)
        tables.append((angles.cos(), angles.sin()))
    axes = torch.meshgrid(*(torch.arange(extent) for extent in extents), indexing="ij")
    return tuple(tables), tuple(axis.reshape(1, -1) for axis in axes)


def _framepack_clean(sizes: Sizes) -> Tensor:
    # The first frame of all is always there; the pipeline goes back in time.
    after = 1 + sizes["frames"]
    return torch.tensor([0, *range(after, after + NEAR)])


def _framepack_middle(sizes: Sizes) -> Tensor:
    return 1 + sizes["frames"] + NEAR + torch.arange(MIDDLE)


def _framepack_far(sizes: Sizes) -> Tensor:
    return 1 + sizes["frames"] + NEAR + MIDDLE + torch.arange(FAR)


def _kandinsky_5_scale(sizes: Sizes, *, patch: int) -> tuple[Tensor, ...]:
    """Of frames, rows and columns; a single frame is an image. Tensors, for a plain number in a
    captured graph is that of one size.
    """
    sides = [PIXELS * patch * sizes[name] for name in ("rows", "columns")]
    small = all(480 <= side <= 854 for side in sides)
    stretch = 1.0 if sizes["frames"] == 1 else 2.0 if small else 3.16
    return tuple(torch.tensor(one) for one in (1.0, stretch, stretch))


def _kandinsky_5_sparse(sizes: Sizes, *, c: Config) -> dict[str, object]:
    """sta_mask: which blocks always attend to one another, those within a window."""
    counts = (sizes["frames"], sizes["rows"] // BLOCK, sizes["columns"] // BLOCK)
    blocks = torch.cartesian_prod(*(torch.arange(count) for count in counts))
    window = torch.tensor([c["attention_wT"], c["attention_wH"], c["attention_wW"]])
    near = ((blocks[:, None] - blocks).abs() <= window // 2).all(dim=-1)
    names = ("P", "wT", "wW", "wH", "add_sta", "method")
    return {
        "sta_mask": near[None, None],
        "attention_type": c["attention_type"],
        "to_fractal": True,
        "visual_shape": tuple(sizes[name] for name in AXES),
        **{name: c[f"attention_{name}"] for name in names},
    }


def allegro(c: Config) -> Signature:
    scales = tuple(c[f"interpolation_scale_{axis}"] for axis in "thw")
    turns = partial(_allegro_turns, dim=c["attention_head_dim"], scales=scales)
    return Signature(
        arguments={
            "hidden_states": clip(c["in_channels"], c["patch_size"], c["patch_size_t"]),
            "encoder_hidden_states": values("words", c["caption_channels"]),
            "timestep": time(),
            "encoder_attention_mask": mask("words"),
            "image_rotary_emb": given(turns),
        }
    )


def cogvideox(c: Config) -> Signature:
    patch, frames = c["patch_size"], c.get("patch_size_t")
    rows, columns = c["sample_height"] // patch, c["sample_width"] // patch
    rotary, learned = (c[f"use_{kind}_positional_embeddings"] for kind in ("rotary", "learned"))
    arguments = {
        "hidden_states": frames_first(c["in_channels"], patch, frames or 1),
        "encoder_hidden_states": values("words", c["text_embed_dim"]),
        "timestep": time(),
    }
    if rotary:
        base = (rows, columns) if frames is None else None
        turns = partial(_cogvideox_turns, dim=c["attention_head_dim"], base=base)
        arguments["image_rotary_emb"] = given(turns)
    if c.get("ofs_embed_dim"):
        arguments["ofs"] = places(lambda _: torch.full((1,), 2.0))
    fixed: dict[str, int] = {}
    if learned or not rotary:
        # A table of positions is added to words and clip, and has places for so many words.
        fixed["words"] = c["max_text_seq_length"]
    if learned:
        fixed |= {"rows": rows, "columns": columns}
    return Signature(arguments=arguments, fixed=fixed)


def consisid(c: Config) -> Signature:
    found = cogvideox(c)
    if not c["is_train_face"]:
        return found
    face = {
        "id_cond": values(c["LFE_id_dim"]),
        # A list of scales in the pipeline, each with the samples' axis first.
        "id_vit_hidden": values(c["LFE_num_scale"], 1, FACE_TOKENS, c["LFE_vit_dim"], batch="none"),
    }
    return replace(found, arguments={**found.arguments, **face})


def cosmos(c: Config) -> Signature:
    frames, patch, _ = c["patch_size"]
    # A channel says which frames are given, where the first of them can be.
    from_clip = c["in_channels"] == c["out_channels"] + 1
    # Cosmos 1 has learned positions, 2.5 projects its text.
    first, later = c["extra_pos_embed_type"] is not None, c["use_crossattn_projection"]
    arguments = {
        "hidden_states": clip(c["in_channels"] - int(from_clip), patch, frames),
        "timestep": time() if first else time(high=1.0),
        "encoder_hidden_states": values(
            "words", c["crossattn_proj_in_channels" if later else "text_embed_dim"]
        ),
    }
    if from_clip:
        arguments["condition_mask"] = clip(1, patch, frames)
        if not first:
            arguments["timestep"] = time(1, "frames", 1, 1, high=1.0)
    if first or (from_clip and not later):
        arguments["fps"] = given(lambda _: 30 if first else 16)
    if c["concat_padding_mask"]:
        side = PIXELS * patch
        arguments["padding_mask"] = places(
            lambda sizes: torch.zeros(1, 1, side * sizes["rows"], side * sizes["columns"])
        )
    return Signature(arguments=arguments)


def easyanimate(c: Config) -> Signature:
    # The others come from the clip to be filled in, with a mask of it, or from one to follow.
    channels = c["out_channels"]
    others = c["in_channels"] - channels
    arguments = {
        "hidden_states": clip(channels, c["patch_size"]),
        "timestep": time(),
        "encoder_hidden_states": values("words", c["text_embed_dim"]),
    }
    if others:
        name = "inpaint_latents" if others == channels + 1 else "control_latents"
        arguments[name] = clip(others, c["patch_size"])
    return Signature(arguments=arguments)


def hunyuan_video(c: Config) -> Signature:
    arguments = {
        "hidden_states": clip(c["in_channels"], c["patch_size"], c["patch_size_t"]),
        "timestep": time(),
        "encoder_hidden_states": values("words", c["text_embed_dim"]),
        "encoder_attention_mask": mask("words"),
        "pooled_projections": values(c["pooled_projection_dim"]),
    }
    if c["guidance_embeds"]:
        arguments["guidance"] = time(high=10000.0)
    return Signature(arguments=arguments)


def hunyuan_video_15(c: Config) -> Signature:
    dim = c["image_embed_dim"]
    arguments = {
        "hidden_states": clip(c["in_channels"], c["patch_size"], c["patch_size_t"]),
        "timestep": time(),
        "encoder_hidden_states": values("words", c["text_embed_dim"]),
        "encoder_attention_mask": mask("words"),
        "encoder_hidden_states_2": values("words_2", c["text_embed_2_dim"]),
        "encoder_attention_mask_2": mask("words_2"),
        "image_embeds": values(IMAGE_TOKENS, dim),
    }
    if c["task_type"] == "t2v":
        # Zeros say that there is no image.
        arguments["image_embeds"] = places(lambda _: torch.zeros(IMAGE_TOKENS, dim), batch="axis")
    if c["use_meanflow"]:
        arguments["timestep_r"] = time()
    return Signature(arguments=arguments)


def hunyuan_video_framepack(c: Config) -> Signature:
    found = hunyuan_video(c)
    channels, _, *grid = found.arguments["hidden_states"].dims
    past = {
        "image_embeds": values(IMAGE_TOKENS, c["image_proj_dim"]),
        "indices_latents": places(lambda sizes: 1 + torch.arange(sizes["frames"])),
        "latents_clean": values(channels, 1 + NEAR, *grid),
        "indices_latents_clean": places(_framepack_clean),
        "latents_history_2x": values(channels, MIDDLE, *grid),
        "indices_latents_history_2x": places(_framepack_middle),
        "latents_history_4x": values(channels, FAR, *grid),
        "indices_latents_history_4x": places(_framepack_far),
    }
    return replace(found, arguments={**found.arguments, **past})


def joyimage_edit(c: Config) -> Signature:
    channels, _, *grid = clip(c["in_channels"], c["patch_size"][1]).dims
    return Signature(
        arguments={
            "hidden_states": values("items", channels, 1, *grid),
            "timestep": time(),
            "encoder_hidden_states": values("words", c["text_dim"]),
        },
        fixed={"items": JOY_IMAGES},
    )


def _kandinsky_clip(c: Config, *, given_too: bool) -> Argument:
    """A latent [F, H, W, C]. given_too: as many channels again are a clip that is given, and one
    says where it is.
    """
    frames, patch, _ = c["patch_size"]
    channels, *grid = clip(c["in_visual_dim"], patch, frames).dims
    return values(*grid, 2 * c["in_visual_dim"] + 1 if given_too else channels)


def kandinsky_5(c: Config) -> Signature:
    scale = partial(_kandinsky_5_scale, patch=c["patch_size"][1])
    arguments = {
        "hidden_states": _kandinsky_clip(c, given_too=c["visual_cond"]),
        "encoder_hidden_states": values("words", c["in_text_dim"]),
        "timestep": time(),
        "pooled_projections": values(c["in_text_dim2"]),
        "visual_rope_pos": given(lambda sizes: [torch.arange(sizes[name]) for name in AXES]),
        "text_rope_pos": places(lambda sizes: torch.arange(sizes["words"])),
        "scale_factor": given(scale),
    }
    if c["attention_type"] != "nabla":
        return Signature(arguments=arguments)
    arguments["sparse_params"] = given(partial(_kandinsky_5_sparse, c=c))
    return Signature(arguments=arguments, multiples={"rows": BLOCK, "columns": BLOCK})


def kandinsky_6(c: Config) -> Signature:
    # It makes sound too, of a length that depends on the number of frames.
    return Signature(
        arguments={
            "hidden_states": _kandinsky_clip(c, given_too=c["visual_cond"]),
            "encoder_hidden_states": values("words", c["in_text_dim"]),
            "pooled_projections": values(c["in_text_dim2"]),
            "timestep": time(),
            "audio_hidden_states": values(f"{SOUNDS}*frames", c["in_audio_dim"]),
        }
    )


def kandinsky_6_sr(c: Config) -> Signature:
    return Signature(
        arguments={"hidden_states": _kandinsky_clip(c, given_too=True), "timestep": time()},
        multiples={"rows": BLOCK, "columns": BLOCK},
    )


def latte(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": clip(c["in_channels"], c["patch_size"]),
            "timestep": time(),
            "encoder_hidden_states": values("words", c["caption_channels"]),
        },
        fixed={"frames": c["video_length"]},
    )


KNOWN: Mapping[str, Known] = {
    "AllegroTransformer3DModel": allegro,
    "CogVideoXTransformer3DModel": cogvideox,
    "ConsisIDTransformer3DModel": consisid,
    "CosmosTransformer3DModel": cosmos,
    "EasyAnimateTransformer3DModel": easyanimate,
    "HunyuanVideo15Transformer3DModel": hunyuan_video_15,
    "HunyuanVideoFramepackTransformer3DModel": hunyuan_video_framepack,
    "HunyuanVideoTransformer3DModel": hunyuan_video,
    "JoyImageEditTransformer3DModel": joyimage_edit,
    "Kandinsky5Transformer3DModel": kandinsky_5,
    "Kandinsky6SRTransformer3DModel": kandinsky_6_sr,
    "Kandinsky6Transformer3DModel": kandinsky_6,
    "LatteTransformer3DModel": latte,
}
