"""Whole pipelines of diffusers with small random components, and their pictures against ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from musiva.perf.small_texts import gemma_2, qwen_2_5_vl, qwen_3

__all__ = ["SMALL", "Small", "largest_error", "write"]

CAPTIONS = (
    "a red fox at sunset",
    "two green apples on a table",
    "an old bicycle in the rain",
    "a snowy mountain",
)
# Guidance, steps, negative prompt.
PICTURES = ((5.0, 5, ""), (3.0, 7, "a table"))
LATENT_CHANNELS = 4
TEXT_WIDTH, T5_VOCABULARY = 32, 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """build: the pipeline. asked: arguments of its call for guidance and a negative prompt. sizes:
    (width, height) of the pictures in pixels. packed: it is given a latent as tokens.
    """

    build: Callable[[], Any]
    asked: Callable[[float, str], Mapping[str, object]]
    sizes: tuple[tuple[int, int], ...] = ((48, 32), (32, 64))
    packed: bool = False


def write(name: str, directory: Path) -> Any:
    """The pipeline, saved, as it is loaded from there."""
    torch.manual_seed(0)
    pipeline = SMALL[name].build()
    pipeline.save_pretrained(directory)
    loaded = type(pipeline).from_pretrained(directory)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@torch.inference_mode()
def largest_error(name: str, directory: Path) -> float:
    """Of our pictures, made in shared packs and alone, against the pipeline's from the same
    latents: of values from 0 to 1, before they are rounded.
    """
    theirs, small = write(name, directory), SMALL[name]
    pipeline = load_pipeline(directory, device="cpu")
    intake = Intake(pipeline, tariff=Tariff.guess())
    visits, expected = [], {}
    for i, (guidance, steps, negative) in enumerate(PICTURES):
        asked = {"size": small.sizes[i], "steps": steps, "guidance": guidance, "seed": i}
        request = intake.request(CAPTIONS[i], **asked, negative_prompt=negative, request_id=str(i))
        shape = pipeline.latent_shape(small.sizes[i])
        start = torch.randn(shape, generator=torch.Generator().manual_seed(i))
        visits.append(Visit(request, start=start))
        expected[str(i)] = _picture(small, theirs, i, start)
    errors = []
    for several in (visits, *([visit] for visit in visits)):
        for which, latent in final_latents(pipeline, several).items():
            ours = (pipeline.decode(latent) / 2 + 0.5).clamp(0, 1)
            errors.append(float((ours - expected[which]).abs().max()))
    return max(errors)


def _picture(small: Small, pipeline: Any, i: int, latent: Tensor) -> Tensor:
    """[3, H, W]."""
    (width, height), (guidance, steps, negative) = small.sizes[i], PICTURES[i]
    given = latent[None]
    if small.packed:
        given = pipeline._pack_latents(given, *given.shape)
    return pipeline(
        CAPTIONS[i],
        width=width,
        height=height,
        num_inference_steps=steps,
        latents=given,
        output_type="pt",
        **small.asked(guidance, negative),
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
        joint_attention_dim=TEXT_WIDTH,
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
        joint_attention_dim=TEXT_WIDTH,
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


def _sana() -> Any:
    diffusers = import_module("diffusers")
    transformer = diffusers.SanaTransformer2DModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=16,
        num_cross_attention_heads=4,
        cross_attention_head_dim=8,
        cross_attention_dim=32,
        caption_channels=TEXT_WIDTH,
        timestep_scale=0.5,
    )
    told = inspect.signature(diffusers.SanaPipeline.__call__).parameters
    tokenizer, encoder = gemma_2(
        [*CAPTIONS, *told["complex_human_instruction"].default], TEXT_WIDTH
    )
    return diffusers.SanaPipeline(
        transformer=spread(transformer),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        vae=spread(_deep_autoencoder()),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def _qwen_image() -> Any:
    diffusers = import_module("diffusers")
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[-0.5, 0.2, 0.1, 0.4],
        latents_std=[1.5, 0.8, 2.0, 1.2],
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=256, shift_terminal=0.02
    )
    # The pipeline drops as many tokens of its question as that has in a large vocabulary.
    question = diffusers.QwenImagePipeline(None, None, None, None, None).prompt_template_encode
    tokenizer, encoder = qwen_2_5_vl([*CAPTIONS, *[question] * 4], TEXT_WIDTH)
    return diffusers.QwenImagePipeline(
        transformer=spread(transformer),
        scheduler=scheduler,
        vae=spread(vae),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def _z_image() -> Any:
    diffusers = import_module("diffusers")
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[512, 128, 128],
    )
    tokenizer, encoder = qwen_3([*CAPTIONS, "user assistant"], TEXT_WIDTH)
    return diffusers.ZImagePipeline(
        transformer=spread(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_autoencoder(),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def _deep_autoencoder() -> Any:
    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock")
    scales, widths, layers = ((), (), (5,), (5,)), (8, 8, 16, 16), (1, 1, 1, 1)
    return import_module("diffusers").AutoencoderDC(
        latent_channels=LATENT_CHANNELS,
        attention_head_dim=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        scaling_factor=0.8,
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
        d_model=TEXT_WIDTH,
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


def _plainly(guidance: float, negative: str) -> Mapping[str, object]:
    return {"guidance_scale": guidance, "negative_prompt": negative}


SMALL: Mapping[str, Small] = {
    "sd3": Small(build=_stable_diffusion_3, asked=_plainly),
    "flux": Small(build=_flux, asked=lambda guidance, _: {"guidance_scale": guidance}, packed=True),
    "sana": Small(
        build=_sana,
        asked=lambda *said: {**_plainly(*said), "use_resolution_binning": False},
        sizes=((64, 32), (32, 96)),
    ),
    "qwen_image": Small(
        build=_qwen_image,
        asked=lambda guidance, negative: {"true_cfg_scale": guidance, "negative_prompt": negative},
        packed=True,
    ),
    # Its guidance counts from 0. Where words or tokens are a multiple of 32, its class is another
    # program.
    "z_image": Small(
        build=_z_image,
        asked=lambda guidance, negative: _plainly(guidance - 1.0, negative),
        sizes=((40, 28), (28, 52)),
    ),
}
