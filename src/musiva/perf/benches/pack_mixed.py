"""Child process: eight requests in one engine together against the same ones one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import cycle, islice

import numpy as np
import torch

from musiva.engine import Defaults, Pipeline, load_pipeline
from musiva.engine.executor import STORE_BYTES
from musiva.perf.benches.company import Guest, go_out
from musiva.perf.benches.pictures import PROMPTS
from musiva.perf.child import Message, serve_child
from musiva.perf.measure import compare
from musiva.perf.report import Gate
from musiva.policy import POLICIES, build_policy

__all__ = ["answer"]

REQUESTS = 8
# One that computes all comes between those that skip; then whatever other policies there are.
POLICY_SPECS = (
    "adaptive:tolerance=0.1",
    "never",
    "interval:interval=4",
    "first_block:threshold=0.12",
    "tea_cache:threshold=0.15",
)
# Width and height as parts of the largest side.
SIZES = ((1.0, 1.0), (0.5, 0.5), (0.75, 0.75), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0), (0.75, 1.0))
# Steps between two arrivals.
APART = 2


def answer(question: Message) -> Message:
    """question: model, pairs; `policies` and `steps` may replace the bench's and the model's."""
    pipeline = load_pipeline(str(question["model"]), device="cpu")
    steps = question.get("steps", pipeline.defaults.steps)
    guests = _guests(pipeline, question.get("policies", _all_policies()), steps)

    def together() -> list[np.ndarray]:
        return go_out(pipeline, guests, store_bytes=STORE_BYTES).pictures

    def alone() -> list[np.ndarray]:
        outings = [go_out(pipeline, [guest], store_bytes=STORE_BYTES) for guest in guests]
        return [outing.pictures[0] for outing in outings]

    gate, threads = Gate(), torch.get_num_threads()
    pairs = zip(together(), alone(), strict=True)
    equal = sum(a.tobytes() == b.tobytes() for a, b in pairs)
    name = f"pictures_equal_{threads}_threads"
    if not gate.check(name, f"{equal} of {len(guests)}", holds=equal == len(guests)):
        return {"gate": gate.as_json()}
    found = compare(together, alone, pairs=question["pairs"], warmup=0)
    setting = {
        "what": f"{len(guests)} mixed requests together over one by one",
        "threads": threads,
        "policies": [repr(guest.policy) for guest in guests],
        "sizes": [f"{w}x{h}" for w, h in (guest.size for guest in guests)],
    }
    return {"gate": gate.as_json(), "row": {**setting, **asdict(found)}}


def _all_policies() -> list[str]:
    # What `marked` does others did once.
    named = {spec.partition(":")[0] for spec in POLICY_SPECS} | {"marked"}
    return [*POLICY_SPECS, *(name for name in POLICIES if name not in named)]


def _guests(pipeline: Pipeline, policies: Sequence[str], steps: int) -> list[Guest]:
    specs = islice(cycle(policies), REQUESTS)
    sizes = islice(cycle(_sizes(pipeline.defaults, pipeline.unit)), REQUESTS)
    return [
        Guest(
            prompt=PROMPTS[i],
            policy=build_policy(spec),
            size=size,
            steps=steps,
            guidance=pipeline.defaults.guidance,
            seed=i,
            arrives=APART * i,
        )
        for i, (spec, size) in enumerate(zip(specs, sizes, strict=True))
    ]


def _sizes(defaults: Defaults, unit: int) -> list[tuple[int, int]]:
    """In multiples of `unit` pixels."""
    most = max(defaults.size)
    return [(_side(w * most, defaults, unit), _side(h * most, defaults, unit)) for w, h in SIZES]


def _side(wanted: float, defaults: Defaults, unit: int) -> int:
    return max(round(wanted / unit) * unit, defaults.min_side)


if __name__ == "__main__":
    serve_child(answer)
