"""Classes whose latent is a picture of positions [C, H, W], several of which make a token."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from musiva.compiler.arguments import (
    Argument,
    Sizes,
    classes,
    given,
    mask,
    places,
    time,
    values,
)
from musiva.models.captured.known.base import Config, Known, Signature, picture

__all__ = ["KNOWN"]

# A side of what a position of a latent becomes, where the class is told the picture's size.
PIXELS = 8
# Lumina's pipeline makes a table of so many rows and columns, and the class cuts what it needs.
LUMINA_TABLE = 384
# What a call of Z-Image takes unless it is told otherwise, and no pipeline tells it.
Z_IMAGE_PATCH = 2


def _pixels(patch: int) -> Argument:
    """Height and width of the picture."""

    def make(sizes: Sizes) -> Tensor:
        return torch.tensor([float(PIXELS * patch * sizes[name]) for name in ("rows", "columns")])

    return places(make, batch="axis")


def _aspect(sizes: Sizes) -> Tensor:
    return torch.tensor([sizes["rows"] / sizes["columns"]])


def _corner() -> Argument:
    """Where a picture was cropped: not at all."""
    return places(lambda _: torch.zeros(2), batch="axis")


def _angles(positions: Tensor, dim: int, stretch: float = 1.0) -> Tensor:
    return torch.outer(positions, 1.0 / 10000.0 ** (torch.arange(0, dim, 2) / dim) / stretch)


def _turns(angles: Tensor) -> tuple[Tensor, Tensor]:
    doubled = angles.repeat_interleave(2, dim=-1)
    return doubled.cos(), doubled.sin()


def _ticks(begin: int, end: int, count: int) -> Tensor:
    return torch.linspace(begin, end * (count - 1) / count, count)


def _fitted(sizes: Sizes, base: int) -> tuple[Tensor, Tensor]:
    """Where rows and columns lie when the picture is scaled into a square, and centred."""
    rows, columns = sizes["rows"], sizes["columns"]
    longest = max(rows, columns)
    height, width = round(base / longest * rows), round(base / longest * columns)
    top, left = round((base - height) / 2), round((base - width) / 2)
    return _ticks(top, top + height, rows), _ticks(left, left + width, columns)


def _hunyuan_dit_turns(sizes: Sizes, *, dim: int, base: int) -> tuple[Tensor, Tensor]:
    """Half of a head's channels for the column, then half for the row."""
    rows, columns = _fitted(sizes, base)
    across = _angles(columns, dim // 2)[None, :, :].expand(sizes["rows"], -1, -1)
    down = _angles(rows, dim // 2)[:, None, :].expand(-1, sizes["columns"], -1)
    return _turns(torch.cat([across, down], dim=-1).flatten(0, 1))


def _hunyuan_dit_meta(sizes: Sizes, *, scale: int) -> Tensor:
    """Original size, target size, the crop's corner; in pixels."""
    target = (scale * sizes["rows"], scale * sizes["columns"])
    return torch.tensor([1024, 1024, *target, 0, 0]).float()


def _lumina_table(sizes: Sizes, *, dim: int, base: float) -> Tensor:
    """base: a side of the picture that is not stretched, in tokens."""
    stretch = (sizes["rows"] * sizes["columns"]) ** 0.5 / base
    ticks = torch.arange(LUMINA_TABLE, dtype=torch.float32)
    angles = _angles(ticks, dim // 2, stretch)
    turns = torch.polar(torch.ones_like(angles), angles)
    extents = (LUMINA_TABLE, LUMINA_TABLE, dim // 4, 1)
    down = turns[:, None, :, None].expand(extents)
    across = turns[None, :, :, None].expand(extents)
    return torch.cat([down, across], dim=-1).flatten(2)


def _omnigen_length(sizes: Sizes) -> int:
    """Words, a token of the timestep, and the image."""
    return sizes["words"] + 1 + sizes["rows"] * sizes["columns"]


def _omnigen_mask(sizes: Sizes) -> Tensor:
    before, length = sizes["words"] + 1, _omnigen_length(sizes)
    allowed = torch.ones(length, length)
    return torch.cat([allowed[:before].tril(), allowed[before:]])


def aura_flow(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "encoder_hidden_states": values("words", c["joint_attention_dim"]),
            "timestep": time(high=1.0),
        }
    )


def dit(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "timestep": time(),
            "class_labels": classes(c["num_embeds_ada_norm"]),
        },
        # Square only: it takes the root of the number of tokens.
        same={"columns": "rows"},
    )


def hunyuan_dit(c: Config) -> Signature:
    patch = c["patch_size"]
    turns = partial(_hunyuan_dit_turns, dim=c["attention_head_dim"], base=512 // PIXELS // patch)
    arguments = {
        "hidden_states": picture(c["in_channels"], patch),
        "timestep": time(),
        "encoder_hidden_states": values("words", c["cross_attention_dim"]),
        "text_embedding_mask": mask("words"),
        "encoder_hidden_states_t5": values("words_2", c["cross_attention_dim_t5"]),
        "text_embedding_mask_t5": mask("words_2"),
        "image_rotary_emb": given(turns),
    }
    # From 1.2 on, the class ignores them.
    if c["use_style_cond_and_image_meta_size"]:
        meta = partial(_hunyuan_dit_meta, scale=PIXELS * patch)
        arguments["image_meta_size"] = places(meta, batch="axis")
        arguments["style"] = places(lambda _: torch.tensor(0), batch="axis")
    return Signature(
        arguments=arguments, fixed={"words": c["text_len"], "words_2": c["text_len_t5"]}
    )


def lumina_next(c: Config) -> Signature:
    dim = c["hidden_size"] // c["num_attention_heads"]
    table = partial(_lumina_table, dim=dim, base=c["sample_size"] / c["patch_size"])
    # The pipeline counts tokens of 16 pixels, whatever the patch.
    base_length = (c["sample_size"] * PIXELS // 16) ** 2
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values("words", c["cross_attention_dim"]),
            "encoder_mask": mask("words"),
            "image_rotary_emb": places(table),
            "cross_attention_kwargs": given(lambda _: {"base_sequence_length": base_length}),
        }
    )


def pixart(c: Config) -> Signature:
    arguments = {
        "hidden_states": picture(c["in_channels"], c["patch_size"]),
        "encoder_hidden_states": values("words", c["caption_channels"] or c["cross_attention_dim"]),
        "timestep": time(),
        "encoder_attention_mask": mask("words"),
    }
    # Where the config does not say, the class goes by the size that it was trained on.
    told = c["use_additional_conditions"]
    if c["sample_size"] == 128 if told is None else told:
        arguments["added_cond_kwargs.resolution"] = _pixels(c["patch_size"])
        arguments["added_cond_kwargs.aspect_ratio"] = places(_aspect, batch="axis")
    return Signature(arguments=arguments)


def transformer_2d(c: Config) -> Signature:
    """What DiT and PixArt were before they had classes of their own."""
    if c["patch_size"] is None:
        raise ValueError("without patches, Transformer2DModel is a block of U-Nets")
    return pixart(c) if c["norm_type"] == "ada_norm_single" else dit(c)


def sana(c: Config) -> Signature:
    """With guidance it is Sana-Sprint, whose time is within 1."""
    guided = c["guidance_embeds"]
    arguments = {
        "hidden_states": picture(c["in_channels"], c["patch_size"]),
        "encoder_hidden_states": values("words", c["caption_channels"]),
        "timestep": time(high=1.0 if guided else 1000.0 * c["timestep_scale"]),
        "encoder_attention_mask": mask("words"),
    }
    if guided:
        arguments["guidance"] = time(high=10.0 * c["guidance_embeds_scale"])
    return Signature(arguments=arguments)


def bria_fibo_2(c: Config) -> Signature:
    # One of all blocks together, and one of each that reads the text itself.
    texts = 1 + len(c["injection_layer_ids"])
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values(texts, "words", c["cap_feat_dim"]),
        }
    )


def cogview(c: Config) -> Signature:
    """CogView 3 Plus and CogView 4."""
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "encoder_hidden_states": values("words", c["text_embed_dim"]),
            "timestep": time(),
            "original_size": _pixels(c["patch_size"]),
            "target_size": _pixels(c["patch_size"]),
            "crop_coords": _corner(),
        }
    )


def ernie_image(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "timestep": time(),
            "text_bth": values("words", c["text_in_dim"]),
            "text_lens": places(lambda sizes: torch.tensor(sizes["words"]), batch="axis"),
        }
    )


def _nothing_dropped(sizes: Sizes) -> Tensor:
    return torch.zeros(sizes["rows"] * sizes["columns"], dtype=torch.bool)


def glm_image(c: Config) -> Signature:
    codes = c["prior_vq_quantizer_codebook_size"]
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "encoder_hidden_states": values("words", c["text_embed_dim"]),
            "prior_token_id": Argument(kind="classes", dims=("rows*columns",), high=codes),
            "prior_token_drop": places(_nothing_dropped, batch="axis"),
            "timestep": time(),
            "target_size": _pixels(c["patch_size"]),
            "crop_coords": _corner(),
        }
    )


def hidream_image(c: Config) -> Signature:
    """It is given all layers of the Llama, before the batch, and takes some of them."""
    text, llama = c["caption_channels"]
    layers = max(c["llama_layers"]) + 1
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "timesteps": time(),
            "encoder_hidden_states_t5": values("words", text),
            "encoder_hidden_states_llama3": values(layers, 1, "words", llama, batch="none"),
            "pooled_embeds": values(c["text_emb_dim"]),
        }
    )


def _positions(patch: int, name: str) -> str:
    return name if patch == 1 else f"{patch}*{name}"


def hunyuan_image(c: Config) -> Signature:
    """With patches of three axes it is the refiner, whose picture is a clip of one patch."""
    *frames, height, width = c["patch_size"]
    grid = (_positions(height, "rows"), _positions(width, "columns"))
    arguments = {
        "hidden_states": values(c["in_channels"], *frames, *grid),
        "timestep": time(),
        "encoder_hidden_states": values("words", c["text_embed_dim"]),
        "encoder_attention_mask": mask("words"),
    }
    if c["text_embed_2_dim"] is not None:
        arguments["encoder_hidden_states_2"] = values("words_2", c["text_embed_2_dim"])
        arguments["encoder_attention_mask_2"] = mask("words_2")
    if c["use_meanflow"]:
        arguments["timestep_r"] = time()
    if c["guidance_embeds"]:
        arguments["guidance"] = time(high=10000.0)
    return Signature(arguments=arguments)


def lumina_2(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values("words", c["cap_feat_dim"]),
            "encoder_attention_mask": mask("words"),
        }
    )


def omnigen(c: Config) -> Signature:
    words = Argument(kind="classes", dims=("words",), high=c["vocab_size"])
    ticks = places(lambda sizes: torch.arange(_omnigen_length(sizes)), batch="axis")
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "timestep": time(high=1.0),
            "input_ids": words,
            "input_img_latents": given(lambda _: []),
            "input_image_sizes": given(lambda _: {}),
            "attention_mask": places(_omnigen_mask, batch="axis"),
            "position_ids": ticks,
        }
    )


def prx(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values("words", c["context_in_dim"]),
            "attention_mask": mask("words"),
        }
    )


def stable_diffusion_3(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": picture(c["in_channels"], c["patch_size"]),
            "encoder_hidden_states": values("words", c["joint_attention_dim"]),
            "pooled_projections": values(c["pooled_projection_dim"]),
            "timestep": time(),
        }
    )


def z_image(c: Config) -> Signature:
    grid = (_positions(Z_IMAGE_PATCH, "rows"), _positions(Z_IMAGE_PATCH, "columns"))
    return Signature(
        arguments={
            "x": values(c["in_channels"], 1, *grid, batch="list"),
            "t": time(high=1.0),
            "cap_feats": values("words", c["cap_feat_dim"], batch="list"),
        }
    )


KNOWN: Mapping[str, Known] = {
    "AuraFlowTransformer2DModel": aura_flow,
    "BriaFibo2Transformer2DModel": bria_fibo_2,
    "CogView3PlusTransformer2DModel": cogview,
    "CogView4Transformer2DModel": cogview,
    "DiTTransformer2DModel": dit,
    "ErnieImageTransformer2DModel": ernie_image,
    "GlmImageTransformer2DModel": glm_image,
    "HiDreamImageTransformer2DModel": hidream_image,
    "HunyuanDiT2DModel": hunyuan_dit,
    "HunyuanImageTransformer2DModel": hunyuan_image,
    "Lumina2Transformer2DModel": lumina_2,
    "LuminaNextDiT2DModel": lumina_next,
    "OmniGenTransformer2DModel": omnigen,
    "PRXTransformer2DModel": prx,
    "PixArtTransformer2DModel": pixart,
    "SD3Transformer2DModel": stable_diffusion_3,
    "SanaTransformer2DModel": sana,
    "Transformer2DModel": transformer_2d,
    "ZImageTransformer2DModel": z_image,
}
