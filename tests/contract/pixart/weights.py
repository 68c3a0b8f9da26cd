"""Diffusers' PixArtTransformer2DModel state dict, to ours and back.

Ours joins linears that read the same rows (q, k, v; cross k, v) into one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.contract.pixart.model import PixArt

__all__ = ["from_diffusers", "to_diffusers"]

WEIGHT_BIAS = ("weight", "bias")


def from_diffusers(denoiser: PixArt, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = denoiser.state_dict()
    result = {}
    for name, sources in _names(denoiser).items():
        parts = [tensors[source] for source in sources]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        result[name] = joined.reshape(own[name].shape)
    # Diffusers' head orders channels (height, width, C) inside a patch, latents are (C, height,
    # width).
    return {**result, **_reorder_head(denoiser, result, to_latent_order=True)}


def to_diffusers(denoiser: PixArt, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict (or tensors of the same names and shapes, such as averages) in diffusers'
    names.
    """
    p = denoiser.config.patch_size
    state = {**state, **_reorder_head(denoiser, state, to_latent_order=False)}
    result = {}
    for name, sources in _names(denoiser).items():
        for source, part in zip(sources, state[name].chunk(len(sources)), strict=True):
            result[source] = part.clone()
    conv = result["pos_embed.proj.weight"]
    result["pos_embed.proj.weight"] = conv.reshape(conv.shape[0], denoiser.config.in_channels, p, p)
    return result


def _names(denoiser: PixArt) -> dict[str, list[str]]:
    """Our tensor names, each with the diffusers tensors that are stacked to it."""
    linears = {
        "patch_in": ["pos_embed.proj"],
        "time.linear_1": ["adaln_single.emb.timestep_embedder.linear_1"],
        "time.linear_2": ["adaln_single.emb.timestep_embedder.linear_2"],
        "time_out": ["adaln_single.linear"],
        "resolution.linear_1": ["adaln_single.emb.resolution_embedder.linear_1"],
        "resolution.linear_2": ["adaln_single.emb.resolution_embedder.linear_2"],
        "aspect_ratio.linear_1": ["adaln_single.emb.aspect_ratio_embedder.linear_1"],
        "aspect_ratio.linear_2": ["adaln_single.emb.aspect_ratio_embedder.linear_2"],
        "text_in": ["caption_projection.linear_1"],
        "text_out": ["caption_projection.linear_2"],
        "patch_out": ["proj_out"],
    }
    names = {"head_table": ["scale_shift_table"]}
    for i in range(denoiser.config.num_layers):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        names[f"{ours}.table"] = [f"{theirs}.scale_shift_table"]
        linears |= {
            f"{ours}.qkv": [f"{theirs}.attn1.to_{x}" for x in "qkv"],
            f"{ours}.out": [f"{theirs}.attn1.to_out.0"],
            f"{ours}.cross_q": [f"{theirs}.attn2.to_q"],
            f"{ours}.cross_kv": [f"{theirs}.attn2.to_{x}" for x in "kv"],
            f"{ours}.cross_out": [f"{theirs}.attn2.to_out.0"],
            f"{ours}.mlp_in": [f"{theirs}.ff.net.0.proj"],
            f"{ours}.mlp_out": [f"{theirs}.ff.net.2"],
        }
    for ours, theirs in linears.items():
        names |= {f"{ours}.{kind}": [f"{name}.{kind}" for name in theirs] for kind in WEIGHT_BIAS}
    own = denoiser.state_dict()
    return {name: sources for name, sources in names.items() if name in own}


def _reorder_head(
    denoiser: PixArt, state: Mapping[str, Tensor], *, to_latent_order: bool
) -> dict[str, Tensor]:
    p2, channels = denoiser.config.patch_size**2, denoiser.config.latent_out
    shape = (p2, channels) if to_latent_order else (channels, p2)
    names = [f"patch_out.{kind}" for kind in WEIGHT_BIAS]
    return {name: state[name].unflatten(0, shape).transpose(0, 1).flatten(0, 1) for name in names}
