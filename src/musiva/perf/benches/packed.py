"""Child process: samples of many sizes in one pack against one after the other, both ours."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from musiva.engine import load_denoiser
from musiva.perf.benches.dense import SIZES, TEXT_ROWS, transformer
from musiva.perf.child import Message, serve_child
from musiva.perf.measure import compare
from musiva.perf.report import Gate

__all__ = ["answer"]

# Latent height and width of eight samples: 16 to 256 tokens of 2 x 2 positions.
LATENTS = ((8, 8), (8, 16), (16, 12), (16, 16), (20, 16), (24, 20), (24, 32), (32, 32))


def answer(question: Message) -> Message:
    """question: pairs; `sizes` may replace the model's."""
    torch.manual_seed(0)
    sizes = {**SIZES, **question.get("sizes", {})}
    predictor = load_denoiser(transformer({**sizes, "sample_size": 32}))
    denoiser = predictor.denoiser
    latents = [torch.randn(denoiser.in_channels, *latent) for latent in LATENTS]
    conditions = [
        {"encoder_hidden_states": torch.randn(TEXT_ROWS, denoiser.text_width or 1)} for _ in latents
    ]
    times = [100.0 * (i + 1) for i in range(len(latents))]

    def together() -> list[Tensor]:
        return predictor.predict(latents, times, conditions)

    def alone() -> list[Tensor]:
        samples = zip(latents, times, conditions, strict=True)
        return [predictor.predict([x], [t], [c])[0] for x, t, c in samples]

    gate = Gate()
    equal = all(torch.equal(a, b) for a, b in zip(together(), alone(), strict=True))
    if not gate.check(f"packed_equals_alone_{torch.get_num_threads()}_threads", equal, holds=equal):
        return {"gate": gate.as_json()}
    found = compare(together, alone, pairs=question["pairs"])
    setting = {"what": "8 samples in one pack over one by one", "threads": torch.get_num_threads()}
    return {"gate": gate.as_json(), "row": {**setting, **asdict(found)}}


if __name__ == "__main__":
    serve_child(answer)
