"""Child process: our dense forward against diffusers' eager one, in turns, with the same weights.

The rival runs as well as it can: inference mode, text without padding and no mask, positions of its
own native size. Ours is called through `predict`, text projection and layout included, so nothing
is carried over between calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from musiva.engine import load_denoiser
from musiva.perf.child import Message, serve_child
from musiva.perf.measure import compare
from musiva.perf.report import Gate

__all__ = ["SIZES", "TEXT_ROWS", "answer", "transformer"]

# About 30 million parameters. A token is 2 x 2 latent positions.
SIZES: Mapping[str, object] = {
    "num_attention_heads": 6,
    "attention_head_dim": 64,
    "num_layers": 12,
    "cross_attention_dim": 384,
    "caption_channels": 384,
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 2,
    "interpolation_scale": 1.0,
    "use_additional_conditions": False,
}
TEXT_ROWS = 24
FP32_TOLERANCE = 1e-4
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def answer(question: Message) -> Message:
    """question: tokens a sample (a square), dtype, pairs; `sizes` may replace the model's."""
    tokens, dtype = question["tokens"], DTYPES[str(question["dtype"])]
    torch.manual_seed(0)
    side = 2 * round(tokens**0.5)
    model = transformer({**SIZES, **question.get("sizes", {}), "sample_size": side})
    latent_2CHW = torch.randn(2, model.config.in_channels, side, side)
    text_2LD = torch.randn(2, TEXT_ROWS, model.config.caption_channels)
    exact = _rival(model, latent_2CHW, text_2LD)
    model = model.to(dtype)
    predictor = load_denoiser(model)
    latent_2CHW, text_2LD = latent_2CHW.to(dtype), text_2LD.to(dtype)
    conditions = [{"encoder_hidden_states": text_LD} for text_LD in text_2LD]

    def ours() -> Tensor:
        return torch.stack(predictor.predict(list(latent_2CHW), [500.0, 500.0], conditions))

    def theirs() -> Tensor:
        return _rival(model, latent_2CHW, text_2LD)

    gate = Gate()
    error, rival_error = _error(ours(), exact), _error(theirs(), exact)
    # Both round in half precision, at different places: ours may not be further from the exact
    # result.
    limit = FP32_TOLERANCE if dtype is torch.float32 else 1.5 * rival_error + 1e-3
    name = f"error_{tokens}_{question['dtype']}_{torch.get_num_threads()}_threads"
    if not gate.check(name, error, holds=error <= limit):
        return {"gate": gate.as_json()}
    found = compare(ours, theirs, pairs=question["pairs"], warmup=1)
    setting = {"tokens": tokens, "dtype": question["dtype"], "threads": torch.get_num_threads()}
    return {
        "gate": gate.as_json(),
        "row": {"what": "dense over diffusers", **setting, **asdict(found)},
    }


def transformer(config: Mapping[str, object]) -> Any:
    """Of diffusers, with random weights."""
    return import_module("diffusers").PixArtTransformer2DModel(**config).eval()


@torch.inference_mode()
def _rival(model: torch.nn.Module, latent_2CHW: Tensor, text_2LD: Tensor) -> Tensor:
    no_sizes = {"resolution": None, "aspect_ratio": None}
    time_2 = torch.tensor([500, 500])
    out = model(
        latent_2CHW, encoder_hidden_states=text_2LD, timestep=time_2, added_cond_kwargs=no_sizes
    )
    return out.sample


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).abs().max() / exact.abs().max().clamp(min=1.0))


if __name__ == "__main__":
    serve_child(answer)
