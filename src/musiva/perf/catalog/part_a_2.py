"""AnyFlow, Bria, Chroma and ChronoEdit."""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.compiler.arguments import Sizes, given, places, time, values
from musiva.perf.catalog.base import Entry, Excluded

__all__ = ["ENTRIES", "EXCLUDED"]


def _image_ids(sizes: Sizes) -> Tensor:
    rows, columns = torch.arange(sizes["rows"]), torch.arange(sizes["columns"])
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([torch.zeros_like(down), down, across], dim=-1).flatten(0, 1).float()


def _text_ids(sizes: Sizes) -> Tensor:
    return torch.zeros(sizes["words"], 3)


def _all(sizes: Sizes) -> Tensor:
    """The mask of the words and then the tokens; the class adds its ones to the scores."""
    return torch.ones(sizes["words"] + sizes["rows"] * sizes["columns"])


def _chunks(sizes: Sizes) -> list[int]:
    return [1, sizes["frames"] - 1] if sizes["frames"] > 1 else [1]


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="AnyFlowTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 14,
            "in_channels": 11,
            "out_channels": 13,
            "text_dim": 22,
            "freq_dim": 38,
            "ffn_dim": 46,
            "num_layers": 2,
        },
        arguments={
            "hidden_states": values("frames", 11, "2*rows", "2*columns"),
            "timestep": time("frames"),
            "r_timestep": time("frames"),
            "encoder_hidden_states": values("words", 22),
        },
    ),
    Entry(
        # Without a cache: the first frame is the context, in larger patches, and is not predicted.
        name="AnyFlowFARTransformer3DModel",
        config={
            "full_chunk_limit": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 11,
            "out_channels": 13,
            "text_dim": 22,
            "freq_dim": 38,
            "ffn_dim": 46,
            "num_layers": 2,
        },
        arguments={
            "hidden_states": values("frames", 11, "2*rows", "2*columns"),
            "timestep": time("frames"),
            "r_timestep": time("frames"),
            "encoder_hidden_states": values("words", 22),
            "chunk_partition": given(_chunks),
        },
        multiples={"rows": 2, "columns": 2},
    ),
    Entry(
        name="BriaTransformer2DModel",
        config={
            "in_channels": 44,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 14,
            "num_attention_heads": 2,
            "joint_attention_dim": 22,
            "axes_dims_rope": [2, 6, 6],
        },
        arguments={
            "hidden_states": values("rows*columns", 44),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(),
            "img_ids": places(_image_ids),
            "txt_ids": places(_text_ids),
        },
    ),
    Entry(
        name="BriaFiboTransformer2DModel",
        config={
            "in_channels": 44,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 14,
            "num_attention_heads": 2,
            "joint_attention_dim": 38,
            "text_encoder_dim": 19,
            "axes_dims_rope": [2, 6, 6],
        },
        arguments={
            "hidden_states": values("rows*columns", 44),
            "encoder_hidden_states": values("words", 38),
            # A list of one for each block in the pipeline, each with the samples' axis first.
            "text_encoder_layers": values(3, 1, "words", 19, batch="none"),
            "timestep": time(),
            "img_ids": places(_image_ids),
            "txt_ids": places(_text_ids),
        },
    ),
    Entry(
        name="BriaFibo2Transformer2DModel",
        config={
            "in_channels": 11,
            "patch_size": 2,
            "dim": 28,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "cap_feat_dim": 22,
            "injection_layer_ids": (1,),
            "perceiver_num_layers": 1,
            "min_num_gist_tokens": 4,
            "max_num_gist_tokens": 12,
            "gist_step": 2,
            "gist_min_text_len": 4,
            "gist_max_text_len": 16,
            "axes_dims": (2, 6, 6),
            "axes_lens": (64, 512, 512),
        },
        arguments={
            "hidden_states": values(11, "2*rows", "2*columns"),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values(2, "words", 22),
        },
    ),
    Entry(
        name="ChromaTransformer2DModel",
        config={
            "in_channels": 44,
            "num_layers": 1,
            "num_single_layers": 2,
            "attention_head_dim": 14,
            "num_attention_heads": 2,
            "joint_attention_dim": 22,
            "axes_dims_rope": (2, 6, 6),
            "approximator_num_channels": 16,
            "approximator_hidden_dim": 38,
            "approximator_layers": 2,
        },
        arguments={
            "hidden_states": values("rows*columns", 44),
            "encoder_hidden_states": values("words", 22),
            "timestep": time(high=1.0),
            "img_ids": places(_image_ids),
            "txt_ids": places(_text_ids),
            "attention_mask": places(_all, batch="axis"),
        },
    ),
    Entry(
        name="ChronoEditTransformer3DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 14,
            "in_channels": 26,
            "out_channels": 11,
            "text_dim": 22,
            "freq_dim": 38,
            "ffn_dim": 46,
            "num_layers": 2,
            "image_dim": 34,
            "added_kv_proj_dim": 28,
        },
        arguments={
            "hidden_states": values(26, "frames", "2*rows", "2*columns"),
            "timestep": time(),
            "encoder_hidden_states": values("words", 22),
            "encoder_hidden_states_image": values(17, 34),
        },
        # The length by which it tells the words from the picture's tokens before them.
        fixed={"words": 512},
    ),
)

EXCLUDED: tuple[Excluded, ...] = ()
