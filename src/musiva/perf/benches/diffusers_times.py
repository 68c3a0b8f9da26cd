"""Child process: seconds that diffusers' own pipeline takes for pictures, one after another."""

from __future__ import annotations

import time
from importlib import import_module

import torch

from musiva.engine.load import model_directory
from musiva.perf.child import Message, serve_child

__all__ = ["answer"]

WARMUP = 2


def answer(question: Message) -> Message:
    """question: model, steps, guidance, requests: prompt, seed and size (width, height) each."""
    diffusers = import_module("diffusers")
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    directory = model_directory(str(question["model"]))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(directory).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    seconds = []
    requests = question["requests"]
    for request in [*requests[:WARMUP], *requests]:
        start = time.perf_counter()
        pipeline(
            request["prompt"],
            width=request["size"][0],
            height=request["size"][1],
            num_inference_steps=question["steps"],
            guidance_scale=question["guidance"],
            generator=torch.Generator().manual_seed(request["seed"]),
            use_resolution_binning=False,
            clean_caption=False,
        )
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[WARMUP:]}


if __name__ == "__main__":
    serve_child(answer)
