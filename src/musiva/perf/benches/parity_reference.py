"""Child process: what diffusers' PixArt class and pipelines give, with the weights, inputs and
outputs on disk.

Below `directory`: `denoisers/<i>/` (a diffusers directory) with `cases.safetensors`, and
`pipelines/<i>/` with `cases.safetensors` and `cases.json`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from musiva.models.text import train_tokenizer
from musiva.perf.child import Message, serve_child

__all__ = ["answer", "spread"]

Model = TypeVar("Model", bound=nn.Module)
PROMPTS = (
    "A red fox  at sunset",
    "two green apples on a table",
    "an old bicycle in the rain",
    "a snowy mountain",
)
EPSILON = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.5}
# Class of the pipeline, scheduler, and what is particular about its denoiser.
PIPELINES = (
    ("PixArtSigmaPipeline", FLOW, {}),
    ("PixArtSigmaPipeline", EPSILON, {"out_channels": 8, "patch_size": 2}),
    (
        "PixArtAlphaPipeline",
        EPSILON,
        {"sample_size": 128, "attention_head_dim": 12, "use_additional_conditions": True},
    ),
)
PICTURES = (((48, 32), 4.5, 6, "a table"), ((32, 64), 1.0, 9, ""), ((48, 48), 7.0, 12, ""))


def answer(question: Message) -> Message:
    """question: directory, how many denoisers, and how many pipelines, if not all."""
    directory = Path(str(question["directory"]))
    counts = {"denoisers": question["denoisers"], "pipelines": len(PIPELINES)}
    counts |= {name: question[name] for name in counts if name in question}
    for i in range(counts["denoisers"]):
        _write_denoiser(directory / "denoisers" / str(i), i)
    for i in range(counts["pipelines"]):
        _write_pipeline(directory / "pipelines" / str(i), i)
    return counts


def _write_denoiser(directory: Path, i: int) -> None:
    """One random small config and four samples of random sizes; each is run alone. Some have masked
    text.
    """
    diffusers = import_module("diffusers")
    draw = random.Random(i)
    torch.manual_seed(i)
    sized, patch = i % 3 == 2, draw.choice((1, 2, 2))
    heads, head_dim = draw.randint(1, 5), draw.choice((12, 24) if sized else (8, 12, 20))
    config = {
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "num_layers": draw.randint(1, 4),
        "in_channels": draw.choice((3, 4, 8)),
        "out_channels": None,
        "cross_attention_dim": heads * head_dim,
        "caption_channels": draw.choice((16, 40)),
        "patch_size": patch,
        "sample_size": draw.choice((8, 16, 64, 128)),
        "interpolation_scale": draw.choice((None, 0.5, 2)),
        "attention_bias": draw.random() < 0.7,
        "use_additional_conditions": sized,
    }
    config["out_channels"] = config["in_channels"] * draw.choice((1, 2))
    model = spread(diffusers.PixArtTransformer2DModel(**config)).eval()
    model.save_pretrained(directory)
    tensors: dict[str, Tensor] = {}
    for j in range(4):
        height, width = (patch * draw.randint(1, 19 // patch) for _ in range(2))
        length = draw.randint(1, 30)
        tensors[f"{j}.latent"] = torch.randn(config["in_channels"], height, width)
        tensors[f"{j}.text"] = torch.randn(length, config["caption_channels"])
        tensors[f"{j}.timestep"] = torch.tensor(float(draw.randint(0, 999)))
        mask = torch.ones(length, dtype=torch.int64) if j % 2 else (torch.rand(length) < 0.6).long()
        mask[0] = 1
        tensors[f"{j}.mask"] = mask
        if sized:
            tensors[f"{j}.resolution"] = torch.tensor([8.0 * height, 8.0 * width])
            tensors[f"{j}.aspect_ratio"] = torch.tensor([height / width])
        tensors[f"{j}.expected"] = _expected(
            model, {k[2:]: t for k, t in tensors.items() if k[0] == str(j)}
        )
    save_file(tensors, directory / "cases.safetensors")


@torch.no_grad()
def _expected(model: Callable[..., Any], case: Mapping[str, Tensor]) -> Tensor:
    added = {
        name: case[name][None] if name in case else None for name in ("resolution", "aspect_ratio")
    }
    out = model(
        case["latent"][None],
        encoder_hidden_states=case["text"][None],
        encoder_attention_mask=case["mask"][None],
        timestep=case["timestep"][None],
        added_cond_kwargs=added,
    )
    return out.sample[0].contiguous()


def _write_pipeline(directory: Path, i: int) -> None:
    diffusers, transformers = import_module("diffusers"), import_module("transformers")
    kind, scheduler, particular = PIPELINES[i]
    torch.manual_seed(1000 + i)
    train_tokenizer(
        [*PROMPTS, *(f"{a} and {b}" for a in PROMPTS for b in PROMPTS)],
        96,
        directory / "tokenizer",
        64,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory / "tokenizer")
    text = {"vocab_size": 96, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    sizes = {
        "num_attention_heads": 3,
        "attention_head_dim": 8,
        "num_layers": 2,
        "in_channels": 4,
        "out_channels": 4,
        "caption_channels": 16,
        "patch_size": 1,
        "sample_size": 8,
        "use_additional_conditions": False,
        **particular,
    }
    sizes["cross_attention_dim"] = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.5,
    )
    pipeline = getattr(diffusers, kind)(
        tokenizer=tokenizer,
        text_encoder=transformers.T5EncoderModel(
            transformers.T5Config(**text, feed_forward_proj="gated-gelu")
        ).eval(),
        vae=spread(vae).eval(),
        transformer=spread(diffusers.PixArtTransformer2DModel(**sizes)).eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(**scheduler),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(directory)
    tensors, cases = {}, []
    for j, ((width, height), guidance, steps, negative) in enumerate(PICTURES):
        latent = torch.randn(4, height // 8, width // 8)
        images = pipeline(
            PROMPTS[j],
            negative_prompt=negative,
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=latent[None] * pipeline.scheduler.init_noise_sigma,
            output_type="pt",
            use_resolution_binning=False,
            clean_caption=False,
        ).images
        tensors |= {f"{j}.latent": latent, f"{j}.expected": images[0].contiguous()}
        case = {"prompt": PROMPTS[j], "negative_prompt": negative, "size": [width, height]}
        cases.append({**case, "guidance": guidance, "steps": steps})
    save_file(tensors, directory / "cases.safetensors")
    (directory / "cases.json").write_text(json.dumps(cases), encoding="utf-8")


@torch.no_grad()
def spread(model: Model) -> Model:
    """Weights and biases of a size at which every part of the model shows in its output."""
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "table" not in name:
            parameter.normal_(0.0, parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.1)
    return model


if __name__ == "__main__":
    serve_child(answer)
