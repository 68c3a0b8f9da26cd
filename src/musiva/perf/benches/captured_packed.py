"""Child process: four requests packed, a quarter of the tiles of each, against the dense run of all
of them, in turns.

Which tiles run changes from evaluation to evaluation, so that packs are laid out anew for each; the
dense pack is the same all the time. Both know their words from the evaluations before.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import count

import torch
from torch import Tensor

from musiva.compiler import Sizes
from musiva.compiler.captured import tensor_of
from musiva.core.pack import Pack, Rows
from musiva.engine.paged import PagedRun
from musiva.engine.runner import PlainRun, forward
from musiva.models.captured import CapturedDenoiser, Signature, captured_from, signature_of
from musiva.models.captured.check import call_of, relative_error
from musiva.ops.linear import Linears, choose_kernel
from musiva.perf.captures import some_tokens, taken
from musiva.perf.child import Message, serve_child
from musiva.perf.measure import Comparison, compare
from musiva.perf.report import Gate
from musiva.perf.thirty import MODELS, sizes_of
from musiva.store import Store

__all__ = ["answer"]

REQUESTS = 4
STORE_BYTES = 1 << 31
TOLERANCE = 1e-4


def answer(question: Message) -> Message:
    """question: model, tokens of a request, pairs; `options` may change the model's config."""
    name, tokens = str(question["model"]), int(question["tokens"])
    model = MODELS[name]
    module = model.build(tokens, **question.get("options", {}))
    signature = signature_of(module)
    denoiser = captured_from(module, signature)
    sizes = signature.sized(sizes_of(model, tokens))
    gate, setting = Gate(), {"model": name, "tokens": tokens, "threads": torch.get_num_threads()}
    with torch.inference_mode():
        found = _compared(denoiser, signature, sizes, gate, int(question["pairs"]))
    if found is None:
        return {"gate": gate.as_json()}
    what = "four dense requests over a quarter of their tiles"
    return {"gate": gate.as_json(), "row": {"what": what, **setting, **asdict(found)}}


def _compared(
    denoiser: CapturedDenoiser, signature: Signature, sizes: Sizes, gate: Gate, pairs: int
) -> Comparison | None:
    """Seconds of the dense run over those of the tiles; None where these are wrong."""
    owners = [f"request {i}" for i in range(REQUESTS)]
    pack = _keyed(denoiser.captured.pack([sizes] * REQUESTS, owners=owners), owners)
    samples = []
    for seed in range(REQUESTS):
        call = call_of(signature, sizes, seed)
        samples.append({n: tensor_of(call, n) for n in denoiser.captured.program.inputs})
    inputs = denoiser.inputs(denoiser.captured.lay(samples, denoiser.frame(pack)))
    linears = Linears(choose_kernel(torch.float32))
    store = Store.Config(budget_bytes=STORE_BYTES, device=torch.device("cpu")).build()
    plain, paged = PlainRun(linears), PagedRun(store, linears)
    grid, evaluations = pack.image.segments[0].grid, count()

    def dense() -> Tensor:
        return forward(denoiser, inputs, pack, plain)

    def some() -> tuple[Pack, Tensor]:
        evaluation = next(evaluations)
        chosen = [some_tokens(grid, REQUESTS * evaluation + i) for i in range(REQUESTS)]
        part = pack.take({"image": chosen})
        with paged.begin(part, dict.fromkeys(owners, evaluation)):
            return part, forward(denoiser, taken(denoiser, inputs, part), part, paged)

    with paged.begin(pack, dict.fromkeys(owners, next(evaluations))):
        forward(denoiser, inputs, pack, paged)
    # At the latent and the time that the pages are of, some rows are what they are in the whole.
    part, found_TC = some()
    whole_TC = dense()[part.image.source_T]
    error = max(map(relative_error, part.split(found_TC), part.split(whole_TC)))
    if not gate.check(
        f"{type(denoiser.module).__name__}_tiles_error", error, holds=error <= TOLERANCE
    ):
        return None
    return compare(dense, some, pairs=pairs)


def _keyed(pack: Pack, keys: list[str]) -> Pack:
    """With words that are known to be the same from evaluation to evaluation."""
    return Pack(
        {
            name: rows
            if name == "image"
            else Rows.build([s.grid for s in rows.segments], keys, rows.device)
            for name, rows in pack.streams.items()
        }
    )


if __name__ == "__main__":
    serve_child(answer)
