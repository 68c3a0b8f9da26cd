"""Whole pipelines of clips of diffusers with small random components, and their clips against
ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from musiva.engine import Intake, load_pipeline
from musiva.engine.scheduler.prices import Tariff
from musiva.models.text import train_tokenizer
from musiva.perf.benches.parity_reference import spread
from musiva.perf.benches.tap import Visit, final_latents

__all__ = ["CLIPS", "SmallClips", "largest_clip_error", "write_clips"]

CAPTIONS = (
    "a red fox at sunset",
    "two green apples on a table",
    "an old bicycle in the rain",
    "a snowy mountain",
)
# Shorter than the prompt, and longer.
NEGATIVES = ("", "an old bicycle in the rain and a snowy mountain")
# (width, height) in pixels, guidance, steps.
REQUESTS = (((48, 32), 5.0, 5), ((32, 64), 3.0, 7))
LATENT_CHANNELS = 4
WIDTH, VOCABULARY = 32, 96
LATTE_FRAMES = 4


@dataclass(frozen=True, slots=True)
class SmallClips:
    """frames: of each of two clips."""

    build: Callable[[], Any]
    frames: tuple[int, int]


def write_clips(name: str, directory: Path) -> Any:
    """The pipeline, as it is saved there. It is not loaded again: diffusers keeps some of Wan's
    weights in float32, for which it needs another package.
    """
    torch.manual_seed(0)
    pipeline = CLIPS[name].build()
    pipeline.save_pretrained(directory)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    return pipeline


@torch.inference_mode()
def largest_clip_error(name: str, directory: Path) -> float:
    """Of our clips, made in shared packs and alone, against the pipeline's from the same latents:
    of values from 0 to 1, before they are rounded.
    """
    theirs = write_clips(name, directory)
    pipeline = load_pipeline(directory, device="cpu")
    intake = Intake(pipeline, tariff=Tariff.guess())
    visits, expected_F3HW = [], {}
    for i, (size, guidance, steps) in enumerate(REQUESTS):
        request = intake.request(
            CAPTIONS[i],
            negative_prompt=NEGATIVES[i],
            size=size,
            frames=CLIPS[name].frames[i],
            steps=steps,
            guidance=guidance,
            request_id=str(i),
        )
        shape = pipeline.latent_shape(size, request.frames)
        start = torch.randn(shape, generator=torch.Generator().manual_seed(i))
        visits.append(Visit(request, start=start))
        expected_F3HW[str(i)] = _clip(name, theirs, i, start)
    errors = []
    for several in (visits, *([visit] for visit in visits)):
        for which, latent in final_latents(pipeline, several).items():
            pixels_3FHW = pipeline.decode(latent, CLIPS[name].frames[int(which)])
            ours_F3HW = (pixels_3FHW / 2 + 0.5).clamp(0, 1).transpose(0, 1)
            errors.append(float((ours_F3HW - expected_F3HW[which]).abs().max()))
    return max(errors)


def _clip(name: str, pipeline: Any, i: int, latent: Tensor) -> Tensor:
    """[F, 3, H, W]."""
    (width, height), guidance, steps = REQUESTS[i]
    count = "video_length" if name == "latte" else "num_frames"
    return pipeline(
        CAPTIONS[i],
        negative_prompt=NEGATIVES[i],
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=latent[None],
        output_type="pt",
        **{count: CLIPS[name].frames[i]},
    ).frames[0]


def _wan() -> Any:
    diffusers = import_module("diffusers")
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=WIDTH,
        freq_dim=20,
        ffn_dim=52,
        num_layers=2,
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.1, 0.9],
    )
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return diffusers.WanPipeline(
        transformer=spread(transformer), vae=spread(vae), scheduler=scheduler, **_text("UMT5")
    )


def _latte() -> Any:
    diffusers = import_module("diffusers")
    transformer = diffusers.LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=LATENT_CHANNELS,
        out_channels=2 * LATENT_CHANNELS,
        num_layers=2,
        cross_attention_dim=32,
        attention_bias=True,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=WIDTH,
        video_length=LATTE_FRAMES,
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        scaling_factor=0.5,
    )
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return diffusers.LattePipeline(
        transformer=spread(transformer), vae=spread(vae), scheduler=scheduler, **_text("T5")
    )


def _cogvideox(*, rotary: bool = True, **patches: object) -> Any:
    diffusers = import_module("diffusers")
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=20,
        text_embed_dim=WIDTH,
        num_layers=2,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        use_rotary_positional_embeddings=rotary,
        **patches,
    )
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
    )
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    return diffusers.CogVideoXPipeline(
        transformer=spread(transformer), vae=spread(vae), scheduler=scheduler, **_text("T5")
    )


def _cogvideox_15() -> Any:
    return _cogvideox(patch_size_t=2, patch_bias=False)


def _cogvideox_2b() -> Any:
    return _cogvideox(rotary=False)


def _text(kind: str) -> dict[str, Any]:
    """Encoder and tokenizer: of T5, or of UMT5, which has a bias of positions for each layer."""
    transformers = import_module("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    texts = [*CAPTIONS, *(f"{a} and {b}" for a in CAPTIONS for b in CAPTIONS)]
    with TemporaryDirectory() as folder:
        train_tokenizer(texts, VOCABULARY, Path(folder), 512)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = getattr(transformers, f"{kind}EncoderModel")(config).eval()
    return {"text_encoder": encoder, "tokenizer": tokenizer}


CLIPS: Mapping[str, SmallClips] = {
    "wan": SmallClips(_wan, (5, 9)),
    "latte": SmallClips(_latte, (LATTE_FRAMES, LATTE_FRAMES)),
    "cogvideox": SmallClips(_cogvideox, (9, 17)),
    "cogvideox_15": SmallClips(_cogvideox_15, (9, 9)),
    "cogvideox_2b": SmallClips(_cogvideox_2b, (9, 17)),
}
