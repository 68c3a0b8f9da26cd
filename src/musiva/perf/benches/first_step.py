"""Child process: seconds from a module with its weights to the first step done, imports aside."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

import torch

from musiva.engine.verify import verified
from musiva.models.captured import captured_from, signature_of
from musiva.perf.captures import NEW, Trial
from musiva.perf.catalog import ENTRIES, Entry, build
from musiva.perf.child import Message, serve_child

__all__ = ["answer"]


def answer(question: Message) -> Message:
    """question: names of classes."""
    names = question["names"]
    return {"rows": [_first_step(entry) for entry in ENTRIES if entry.name in names]}


@torch.no_grad()
def _first_step(entry: Entry) -> Mapping[str, object]:
    """Captured or read from the cache, held against the class, laid out and evaluated."""
    module = build(entry)
    start = time.perf_counter()
    signature = signature_of(module)
    denoiser = verified(captured_from(module, signature), signature)
    trial, sizes = Trial(denoiser, signature), signature.sized(NEW[2])
    outputs = trial.found([sizes], [trial.call(sizes, 0)])
    seconds = time.perf_counter() - start
    sums = hashlib.sha256(b"".join(x.numpy().tobytes() for several in outputs for x in several))
    return {
        "class": entry.name,
        "what": "first step",
        "seconds": seconds,
        "from_cache": denoiser.captured.is_cached,
        "outputs": sums.hexdigest(),
    }


if __name__ == "__main__":
    serve_child(answer)
