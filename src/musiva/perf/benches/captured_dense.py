"""Child process: captured models against what else runs the same weights, in turns: diffusers'
eager class, or the PixArt that was written by hand, which is an oracle of the tests.

The rival runs as well as it can: inference mode, one batch, no masks. Ours is called through
`predict`: reading what is given, laying it out on rows, and all of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module

import torch
from torch import Tensor

from musiva.compiler import Sizes
from musiva.engine import Predictor
from musiva.models.captured import Signature, captured_from, signature_of
from musiva.models.captured.check import call_of, relative_error
from musiva.perf.child import Message, serve_child
from musiva.perf.measure import compare
from musiva.perf.report import Gate
from musiva.perf.thirty import MODELS, batched, conditions_of, sizes_of

__all__ = ["answer"]

TOLERANCE = 1e-4
BATCH = 2
# Of a checkout, found where a bench is run in its root.
ORACLE = "tests.contract.pixart"


def answer(question: Message) -> Message:
    """question: model, rival ("diffusers" or "handwritten"), tokens of a sample, pairs; `options`
    may change the model's config.
    """
    name, tokens = str(question["model"]), int(question["tokens"])
    model = MODELS[name]
    module = model.build(tokens, **question.get("options", {}))
    signature = signature_of(module)
    sizes = signature.sized(sizes_of(model, tokens))
    calls = [call_of(signature, sizes, seed) for seed in range(BATCH)]
    captured = Predictor(captured_from(module, signature))
    ours = _predicting(captured.predict, captured, signature, sizes, calls)
    exact = theirs = _eager(module, signature, calls)
    if question["rival"] == "handwritten":
        rival = import_module(ORACLE).Oracle(module)
        theirs = _predicting(rival.predict, captured, signature, sizes, calls)
    gate = Gate()
    expected = exact()
    for what, found in (("ours", ours()), ("theirs", theirs())):
        errors = map(relative_error, found, expected)
        error = max(float(one) for one in errors)
        if not gate.check(f"{name}_{tokens}_{what}_error", error, holds=error <= TOLERANCE):
            return {"gate": gate.as_json()}
    found = compare(ours, theirs, pairs=int(question["pairs"]), warmup=2)
    setting = {"model": name, "tokens": tokens, "threads": torch.get_num_threads()}
    parameters = sum(one.numel() for one in module.parameters())
    what = f"captured over {question['rival']}"
    return {
        "gate": gate.as_json(),
        "row": {"what": what, **setting, "parameters": parameters, **asdict(found)},
    }


def _eager(
    module: torch.nn.Module, signature: Signature, calls: Sequence[dict[str, object]]
) -> Callable[[], list[Tensor]]:
    together = batched(signature, calls)

    @torch.inference_mode()
    def run() -> list[Tensor]:
        return list(module(**together)[0])

    return run


def _predicting(
    predict: Callable[..., list[Tensor]],
    captured: Predictor,
    signature: Signature,
    sizes: Sizes,
    calls: Sequence[dict[str, object]],
) -> Callable[[], list[Tensor]]:
    latent, time = captured.denoiser.latent, captured.denoiser.time
    assert time is not None
    latents = [call[latent][0] for call in calls]  # pyright: ignore
    times = [float(call[time].flatten()[0]) for call in calls]  # pyright: ignore
    conditions = [conditions_of(signature, sizes, call, (latent, time)) for call in calls]
    return lambda: predict(latents, times, conditions)


if __name__ == "__main__":
    serve_child(answer)
