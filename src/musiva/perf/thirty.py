"""Models of about thirty million parameters, with random weights, to measure speed on; and calls of
them, of one sample and of several at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn

from musiva.compiler import Sizes
from musiva.models.captured import Signature

__all__ = ["MODELS", "Model", "batched", "conditions_of", "sizes_of"]

WORDS = 32
HEADS, WIDTH = 6, 64
INNER = HEADS * WIDTH
# Of clips.
FRAMES = 4


@dataclass(frozen=True, slots=True)
class Model:
    """A class of diffusers and its config. clips: whether its tokens lie in frames."""

    name: str
    config: Mapping[str, object]
    clips: bool = False

    def build(self, tokens: int, **options: object) -> nn.Module:
        """For a square of so many tokens in all. options: of the config, instead of its own."""
        torch.manual_seed(0)
        config = {**self.config, **options}
        if "sample_size" in config:
            config["sample_size"] = 2 * sizes_of(self, tokens)["rows"]
        module: nn.Module = getattr(import_module("diffusers"), self.name)(**config)
        for parameter in module.parameters():
            # What starts at zero would leave most of the model out of what is compared.
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        return module.eval().requires_grad_(False)


MODELS: Mapping[str, Model] = {
    "pixart": Model(
        "PixArtTransformer2DModel",
        {
            "num_attention_heads": HEADS,
            "attention_head_dim": WIDTH,
            "num_layers": 12,
            "cross_attention_dim": INNER,
            "caption_channels": INNER,
            "in_channels": 4,
            "out_channels": 4,
            "patch_size": 2,
            "interpolation_scale": 1.0,
            "use_additional_conditions": False,
            "sample_size": 32,
        },
    ),
    "sd3": Model(
        "SD3Transformer2DModel",
        {
            "num_attention_heads": HEADS,
            "attention_head_dim": WIDTH,
            "num_layers": 6,
            "joint_attention_dim": INNER,
            "caption_projection_dim": INNER,
            "pooled_projection_dim": 256,
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "qk_norm": "rms_norm",
            "sample_size": 32,
        },
    ),
    "flux": Model(
        "FluxTransformer2DModel",
        {
            "num_attention_heads": HEADS,
            "attention_head_dim": WIDTH,
            "num_layers": 3,
            "num_single_layers": 6,
            "joint_attention_dim": INNER,
            "pooled_projection_dim": 256,
            "in_channels": 64,
            "guidance_embeds": True,
            "axes_dims_rope": (16, 24, 24),
        },
    ),
    "qwen_image": Model(
        "QwenImageTransformer2DModel",
        {
            "num_attention_heads": HEADS,
            "attention_head_dim": WIDTH,
            "num_layers": 6,
            "joint_attention_dim": INNER,
            "in_channels": 64,
            "out_channels": 16,
            "axes_dims_rope": (16, 24, 24),
        },
    ),
    "wan": Model(
        "WanTransformer3DModel",
        {
            "num_attention_heads": HEADS,
            "attention_head_dim": WIDTH,
            "num_layers": 12,
            "ffn_dim": 4 * INNER,
            "text_dim": INNER,
            "freq_dim": 256,
            "in_channels": 16,
            "out_channels": 16,
        },
        clips=True,
    ),
    "latte": Model(
        "LatteTransformer3DModel",
        {
            "num_attention_heads": HEADS,
            "attention_head_dim": WIDTH,
            "num_layers": 7,
            "cross_attention_dim": INNER,
            "caption_channels": INNER,
            "in_channels": 4,
            "out_channels": 8,
            "patch_size": 2,
            "attention_bias": True,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "norm_eps": 1e-6,
            "video_length": FRAMES,
            "sample_size": 32,
        },
        clips=True,
    ),
}


def sizes_of(model: Model, tokens: int) -> dict[str, int]:
    """Of a sample: squares, of several frames where the model has such."""
    frames = FRAMES if model.clips else 1
    side = round((tokens // frames) ** 0.5)
    return {"frames": frames, "rows": side, "columns": side, "words": WORDS, "words_2": WORDS}


def batched(signature: Signature, calls: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Arguments of one call for several samples of one size, without masks, which mask nothing."""
    found: dict[str, object] = {"return_dict": False}
    for name, argument in signature.arguments.items():
        several = [call[name] for call in calls]
        if argument.kind == "mask":
            continue
        if argument.batch == "axis" and all(isinstance(one, Tensor) for one in several):
            found[name] = torch.cat(several)  # pyright: ignore
        elif isinstance(several[0], list):
            found[name] = [entry for one in several for entry in one]  # pyright: ignore
        else:
            found[name] = several[0]
    return found


def conditions_of(
    signature: Signature,
    sizes: Sizes,
    call: Mapping[str, object],
    apart: Sequence[str | None],
) -> dict[str, object]:
    """The conditions of a sample for `predict`, which takes the arguments `apart` by themselves."""
    found: dict[str, object] = {}
    for name, argument in signature.arguments.items():
        if argument.make is not None:
            found[name] = argument.make(sizes)
        elif argument.is_data and name not in apart:
            found[name] = call[name][0]  # pyright: ignore
    return found
