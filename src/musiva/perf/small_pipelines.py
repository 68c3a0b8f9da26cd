"""Whole pipelines of diffusers with small random components, and their pictures against ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from musiva.engine import Intake, load_pipeline
from musiva.engine.scheduler.prices import Tariff
from musiva.models.text import train_tokenizer
from musiva.perf.benches.parity_reference import spread
from musiva.perf.benches.tap import Visit, final_latents

__all__ = ["SMALL", "largest_error", "write"]

CAPTIONS = (
    "a red fox at sunset",
    "two green apples on a table",
    "an old bicycle in the rain",
    "a snowy mountain",
)
# (width, height) in pixels, guidance, steps.
PICTURES = (((48, 32), 5.0, 5), ((32, 64), 3.0, 7))
LATENT_CHANNELS = 4
T5_WIDTH, T5_VOCABULARY = 32, 96


def write(name: str, directory: Path) -> Any:
    """The pipeline, saved, as it is loaded from there."""
    torch.manual_seed(0)
    pipeline = SMALL[name]()
    pipeline.save_pretrained(directory)
    loaded = type(pipeline).from_pretrained(directory)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@torch.inference_mode()
def largest_error(name: str, directory: Path) -> float:
    """Of our pictures, made in shared packs, against the pipeline's from the same latents: of
    values from 0 to 1, before they are rounded.
    """
    theirs = write(name, directory)
    pipeline = load_pipeline(directory, device="cpu")
    intake = Intake(pipeline, tariff=Tariff.guess())
    visits = []
    for i, (size, guidance, steps) in enumerate(PICTURES):
        asked = {"size": size, "steps": steps, "guidance": guidance, "seed": i}
        request = intake.request(CAPTIONS[i], **asked, request_id=str(i))
        shape = pipeline.latent_shape(size)
        start = torch.randn(shape, generator=torch.Generator().manual_seed(i))
        visits.append(Visit(request, start=start))
    latents = final_latents(pipeline, visits)
    errors = []
    for i, visit in enumerate(visits):
        assert visit.start is not None
        ours = (pipeline.decode(latents[str(i)]) / 2 + 0.5).clamp(0, 1)
        errors.append(float((ours - _picture(name, theirs, i, visit.start)).abs().max()))
    return max(errors)


def _picture(name: str, pipeline: Any, i: int, latent: Tensor) -> Tensor:
    """[3, H, W]."""
    (width, height), guidance, steps = PICTURES[i]
    given = latent[None]
    if name == "flux":
        given = pipeline._pack_latents(given, *given.shape)
    return pipeline(
        CAPTIONS[i],
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=given,
        output_type="pt",
    ).images[0]


def _stable_diffusion_3() -> Any:
    diffusers = import_module("diffusers")
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=20,
        out_channels=LATENT_CHANNELS,
        pos_embed_max_size=32,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=spread(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_autoencoder(),
        text_encoder=_clip(12, pooled=True),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(8, pooled=True),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(),
        tokenizer_3=_t5_tokenizer(),
    )


def _flux() -> Any:
    diffusers = import_module("diffusers")
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=12,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return diffusers.FluxPipeline(
        transformer=spread(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=256
        ),
        vae=_autoencoder(),
        text_encoder=_clip(12, pooled=False),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
    )


def _autoencoder() -> Any:
    diffusers = import_module("diffusers")
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5,
        shift_factor=0.1,
    )
    return spread(vae)


def _clip(width: int, *, pooled: bool) -> Any:
    transformers = import_module("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=len(_clip_vocabulary()),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=_clip_vocabulary()["<|startoftext|>"],
        eos_token_id=_clip_vocabulary()["<|endoftext|>"],
    )
    kind = transformers.CLIPTextModelWithProjection if pooled else transformers.CLIPTextModel
    return kind(config).eval()


def _clip_vocabulary() -> dict[str, int]:
    """Letters, within a word and at its end, and the ends of a text."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    return {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def _clip_tokenizer() -> Any:
    transformers = import_module("transformers")
    return transformers.CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], model_max_length=77)


def _t5() -> Any:
    transformers = import_module("transformers")
    config = transformers.T5Config(
        vocab_size=T5_VOCABULARY,
        d_model=T5_WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return transformers.T5EncoderModel(config).eval()


def _t5_tokenizer() -> Any:
    transformers = import_module("transformers")
    texts = [*CAPTIONS, *(f"{a} and {b}" for a in CAPTIONS for b in CAPTIONS)]
    with TemporaryDirectory() as folder:
        train_tokenizer(texts, T5_VOCABULARY, Path(folder), 512)
        return transformers.AutoTokenizer.from_pretrained(folder)


SMALL: Mapping[str, Callable[[], Any]] = {"sd3": _stable_diffusion_3, "flux": _flux}
