"""Classes whose image comes as a sequence of tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from musiva.compiler.arguments import Sizes, given, mask, places, time, values
from musiva.models.captured.known.base import Config, Known, Signature

__all__ = ["KNOWN"]

TOKENS = "rows*columns"
# FLUX.3 has half a position from token to token.
FLUX_3_STEP = 0.5
# Ideogram's kinds of tokens, and where its images begin.
IDEOGRAM_IMAGE, IDEOGRAM_TEXT, IDEOGRAM_START = 2, 3, 65536
# LongCat's images begin where the longest text ends.
LONGCAT_START = 512
# Qwen-Image-Layered makes four layers and the whole of them, of one image.
QWEN_LAYERS = 4 + 1


def _grid(s: Sizes) -> Tensor:
    return torch.cartesian_prod(torch.arange(s["rows"]), torch.arange(s["columns"]))


def _zeros_before(grid: Tensor) -> Tensor:
    return torch.nn.functional.pad(grid, (1, 0))


def _image_places(s: Sizes) -> Tensor:
    return _zeros_before(_grid(s).float())


def _text_zeros(s: Sizes) -> Tensor:
    return torch.zeros(s["words"], 3)


def _text_diagonal(s: Sizes) -> Tensor:
    words = torch.arange(s["words"]).float()
    return torch.stack([torch.zeros_like(words), words, words], dim=1)


def _four_axes_image(s: Sizes) -> Tensor:
    return torch.nn.functional.pad(_grid(s), (1, 1))


def _four_axes_text(s: Sizes) -> Tensor:
    return torch.nn.functional.pad(torch.arange(s["words"])[:, None], (3, 0))


def _length(s: Sizes) -> int:
    """Of words and image."""
    return s["words"] + s["rows"] * s["columns"]


def _ideogram_places(s: Sizes) -> Tensor:
    text = torch.arange(s["words"])[:, None].expand(-1, 3)
    return torch.cat([text, _zeros_before(_grid(s)) + IDEOGRAM_START])


def _ideogram_kinds(s: Sizes) -> Tensor:
    kinds = torch.full((_length(s),), IDEOGRAM_IMAGE)
    kinds[: s["words"]] = IDEOGRAM_TEXT
    return kinds


def _longcat_image_places(s: Sizes) -> Tensor:
    grid = _grid(s).float() + LONGCAT_START
    return torch.nn.functional.pad(grid, (1, 0), value=1.0)


def _qwen_21_slots(s: Sizes) -> Tensor:
    """The words, then one slot for each 2 x 2 tokens of the image."""
    return torch.arange(s["words"] + s["rows"] * s["columns"] // 4) >= s["words"]


def bria(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "encoder_hidden_states": values("words", c["joint_attention_dim"]),
            "timestep": time(),
            "img_ids": places(_image_places),
            "txt_ids": places(_text_zeros),
        }
    )


def bria_fibo(c: Config) -> Signature:
    blocks = c["num_layers"] + c["num_single_layers"]
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "encoder_hidden_states": values("words", c["joint_attention_dim"]),
            # A list of one for each block in the pipeline, each with the samples' axis first.
            "text_encoder_layers": values(blocks, 1, "words", c["text_encoder_dim"], batch="none"),
            "timestep": time(),
            "img_ids": places(_image_places),
            "txt_ids": places(_text_zeros),
        }
    )


def chroma(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "encoder_hidden_states": values("words", c["joint_attention_dim"]),
            "timestep": time(high=1.0),
            "img_ids": places(_image_places),
            "txt_ids": places(_text_zeros),
            # Of floats, which the class adds to the scores.
            "attention_mask": places(lambda s: torch.ones(_length(s)), batch="axis"),
        }
    )


def flux(c: Config) -> Signature:
    arguments = {
        "hidden_states": values(TOKENS, c["in_channels"]),
        "encoder_hidden_states": values("words", c["joint_attention_dim"]),
        "pooled_projections": values(c["pooled_projection_dim"]),
        "timestep": time(high=1.0),
        "img_ids": places(_image_places),
        "txt_ids": places(_text_zeros),
    }
    if c["guidance_embeds"]:
        arguments["guidance"] = time(high=10.0)
    return Signature(arguments=arguments)


def flux_2(c: Config) -> Signature:
    arguments = {
        "hidden_states": values(TOKENS, c["in_channels"]),
        "encoder_hidden_states": values("words", c["joint_attention_dim"]),
        "timestep": time(high=1.0),
        "img_ids": places(_four_axes_image, batch="axis"),
        "txt_ids": places(_four_axes_text, batch="axis"),
    }
    if c["guidance_embeds"]:
        arguments["guidance"] = time(high=10.0)
    return Signature(arguments=arguments)


def flux_3(c: Config) -> Signature:
    arguments = {
        "hidden_states": values(TOKENS, c["in_channels"]),
        "encoder_hidden_states": values("words", c["joint_attention_dim"]),
        "timestep": time(high=1.0),
        "img_ids": places(lambda s: _four_axes_image(s) * FLUX_3_STEP),
        "txt_ids": places(lambda s: _four_axes_text(s).float()),
    }
    if c["flow_map"]:
        # The timestep that a step goes to.
        arguments["target_timestep"] = time(high=1.0)
    return Signature(arguments=arguments)


def ideogram_4(c: Config) -> Signature:
    # Words and image are one sequence, with zeros for the latents of the former and the text of
    # the latter.
    length = f"words+{TOKENS}"
    return Signature(
        arguments={
            "hidden_states": values(length, c["in_channels"]),
            "timestep": time(high=1.0),
            "encoder_hidden_states": values(length, c["llm_features_dim"]),
            "position_ids": places(_ideogram_places, batch="axis"),
            "segment_ids": places(
                lambda s: torch.ones(_length(s), dtype=torch.int64), batch="axis"
            ),
            "indicator": places(_ideogram_kinds, batch="axis"),
        }
    )


def joy_image_edit_plus(c: Config) -> Signature:
    """Of the image to be made, then one to be edited, of the same size."""
    return Signature(
        arguments={
            "hidden_states": values(f"2*{TOKENS}", c["in_channels"], *c["patch_size"]),
            "timestep": time(),
            "encoder_hidden_states": values("words", c["text_dim"]),
            "encoder_hidden_states_mask": mask("words"),
            "shape_list": given(lambda s: [[(1, s["rows"], s["columns"])] * 2]),
        }
    )


def krea_2(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "encoder_hidden_states": values("words", c["num_text_layers"], c["text_hidden_dim"]),
            "timestep": time(high=1.0),
            "position_ids": places(lambda s: torch.cat([_text_zeros(s), _image_places(s)])),
            "encoder_attention_mask": mask("words"),
        }
    )


def longcat_image(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "encoder_hidden_states": values("words", c["joint_attention_dim"]),
            "timestep": time(high=1.0),
            "img_ids": places(_longcat_image_places),
            "txt_ids": places(_text_diagonal),
        }
    )


def nucleus_moe_image(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "img_shapes": given(lambda s: [(1, s["rows"], s["columns"])]),
            "encoder_hidden_states": values("words", c["joint_attention_dim"]),
            "encoder_hidden_states_mask": mask("words"),
            "timestep": time(high=1.0),
        }
    )


def ovis_image(c: Config) -> Signature:
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"]),
            "encoder_hidden_states": values("words", c["joint_attention_dim"]),
            "timestep": time(high=1.0),
            "img_ids": places(_image_places),
            "txt_ids": places(_text_diagonal),
        }
    )


def qwen_image(c: Config) -> Signature:
    images = _qwen_images(c)
    arguments = {
        "hidden_states": values(TOKENS if images == 1 else f"{images}*{TOKENS}", c["in_channels"]),
        "encoder_hidden_states": values("words", c["joint_attention_dim"]),
        "encoder_hidden_states_mask": mask("words"),
        "timestep": time(high=1.0),
        "img_shapes": given(lambda s: [[(1, s["rows"], s["columns"])] * images]),
    }
    if c["use_additional_t_cond"]:
        arguments["additional_t_cond"] = places(lambda _: torch.tensor(0), batch="axis")
    return Signature(arguments=arguments)


def _qwen_images(c: Config) -> int:
    """How many images are in the sequence, all of one size; a given one is the last."""
    if c["use_layer3d_rope"]:
        return QWEN_LAYERS + 1
    # Tokens of a time of zero are those of a given image.
    return 2 if c["zero_cond_t"] else 1


def qwen_image_21(c: Config) -> Signature:
    """Its output has the words too, before the image."""
    return Signature(
        arguments={
            "hidden_states": values(TOKENS, c["in_channels"] * c["patch_size"] ** 2),
            "encoder_hidden_states": values("words", c["context_in_dim"]),
            "timestep": time(high=1.0),
            "img_shapes": given(lambda s: [[(1, s["rows"], s["columns"])]]),
            "img_mask": places(_qwen_21_slots, batch="axis"),
            "encoder_hidden_states_mask": mask("words"),
        },
        multiples={"rows": 2, "columns": 2},
        before="words",
    )


KNOWN: Mapping[str, Known] = {
    "BriaFiboTransformer2DModel": bria_fibo,
    "BriaTransformer2DModel": bria,
    "ChromaTransformer2DModel": chroma,
    "Flux2Transformer2DModel": flux_2,
    "Flux3Transformer2DModel": flux_3,
    "FluxTransformer2DModel": flux,
    "Ideogram4Transformer2DModel": ideogram_4,
    "JoyImageEditPlusTransformer3DModel": joy_image_edit_plus,
    "Krea2Transformer2DModel": krea_2,
    "LongCatImageTransformer2DModel": longcat_image,
    "NucleusMoEImageTransformer2DModel": nucleus_moe_image,
    "OvisImageTransformer2DModel": ovis_image,
    "QwenImage21Transformer2DModel": qwen_image_21,
    "QwenImageTransformer2DModel": qwen_image,
}
