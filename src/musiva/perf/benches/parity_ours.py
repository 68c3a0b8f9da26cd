"""Child process: our outputs for what `parity_reference` wrote, and how far they are off."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path as FilePath

import torch
from safetensors.torch import load_file
from torch import Tensor

from musiva.core.types import Path, Request
from musiva.engine import Pipeline, load_denoiser, load_pipeline
from musiva.models.captured import CapturedDenoiser
from musiva.perf.benches.tap import Visit, final_latents
from musiva.perf.child import Message, serve_child

__all__ = ["answer"]

Conditions = dict[str, object]


def answer(question: Message) -> Message:
    """question: directory."""
    directory = FilePath(str(question["directory"]))
    rows = [_denoiser(path) for path in sorted((directory / "denoisers").iterdir())]
    pipelines = [_pipeline(path) for path in sorted((directory / "pipelines").iterdir())]
    return {"denoisers": rows, "pipelines": pipelines}


def _denoiser(directory: FilePath) -> Mapping[str, object]:
    """The largest error alone, all in one pack, and in one pack the other way round."""
    tensors = load_file(directory / "cases.safetensors")
    names = sorted({name.partition(".")[0] for name in tensors})
    latents = [tensors[f"{name}.latent"] for name in names]
    times = [float(tensors[f"{name}.timestep"]) for name in names]
    conditions = [_conditions(tensors, name) for name in names]
    expected = [tensors[f"{name}.expected"] for name in names]
    denoiser = load_denoiser(directory)
    samples = list(zip(latents, times, conditions, strict=True))
    alone = [denoiser.predict([x], [t], [c])[0] for x, t, c in samples]
    packed = denoiser.predict(latents, times, conditions)
    backwards = denoiser.predict(latents[::-1], times[::-1], conditions[::-1])[::-1]
    found = {"alone": alone, "packed": packed, "packed backwards": backwards}
    return {
        "what": f"denoiser {directory.name}",
        "sizes": [list(latent.shape) for latent in latents],
        **{way: max(map(_relative_error, outputs, expected)) for way, outputs in found.items()},
        "captured": isinstance(denoiser.denoiser, CapturedDenoiser),
    }


def _conditions(tensors: Mapping[str, Tensor], name: str) -> Conditions:
    found: Conditions = {
        "encoder_hidden_states": tensors[f"{name}.text"],
        "encoder_attention_mask": tensors[f"{name}.mask"],
    }
    if f"{name}.resolution" in tensors:
        sizes = ("resolution", "aspect_ratio")
        found["added_cond_kwargs"] = {size: tensors[f"{name}.{size}"] for size in sizes}
    return found


def _relative_error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
    return error if math.isfinite(error) else float("inf")


def _pipeline(directory: FilePath) -> Mapping[str, object]:
    """All pictures of a pipeline in shared packs; errors of values from 0 to 1, before they are
    rounded.
    """
    tensors = load_file(directory / "cases.safetensors")
    pipeline = load_pipeline(directory, device="cpu")
    cases = json.loads((directory / "cases.json").read_text(encoding="utf-8"))
    visits = [
        Visit(_request(i, case), start=tensors[f"{i}.latent"]) for i, case in enumerate(cases)
    ]
    latents = final_latents(pipeline, visits)
    pairs = [
        (_pixels(pipeline, latents[str(i)]), tensors[f"{i}.expected"]) for i in range(len(cases))
    ]
    error = max(_relative_error(ours, theirs) for ours, theirs in pairs)
    contrast = min(float(theirs.std()) for _, theirs in pairs)
    return {
        "what": f"pipeline {directory.name}",
        "pictures": cases,
        "error": error,
        "least deviation": contrast,
        "captured": isinstance(pipeline.denoiser, CapturedDenoiser),
    }


def _request(i: int, case: Message) -> Request:
    width, height = case["size"]
    return Request(
        id=str(i),
        prompt=case["prompt"],
        negative_prompt=case["negative_prompt"],
        size=(width, height),
        path=Path(steps=case["steps"]),
        seed=0,
        guidance=case["guidance"],
    )


@torch.inference_mode()
def _pixels(pipeline: Pipeline, latent_CHW: Tensor) -> Tensor:
    return (pipeline.decode(latent_CHW) / 2 + 0.5).clamp(0, 1)


if __name__ == "__main__":
    serve_child(answer)
