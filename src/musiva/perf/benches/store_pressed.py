"""Child process: an engine whose store holds a quarter of what its requests want to keep, and what
the operations of a store take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

import torch

from musiva.engine import Pipeline, load_pipeline
from musiva.perf.benches.company import Guest, Outing, go_out, replay_of
from musiva.perf.benches.pictures import PROMPTS
from musiva.perf.benches.store_operations import operation_rows
from musiva.perf.child import Message, serve_child
from musiva.perf.report import Gate
from musiva.policy import build_policy

__all__ = ["answer"]

POLICIES = (
    "first_block:threshold=0.12",
    "tea_cache:threshold=0.15",
    "ras:warmup=2,share=0.5,interval=5",
)
OVER = 4
# Bytes; more than any of these requests ask for.
PLENTY = 1 << 30


def answer(question: Message) -> Message:
    """question: model, requests, rounds; `policies` and `steps` may replace the bench's and the
    model's.
    """
    pipeline = load_pipeline(str(question["model"]), device="cpu")
    steps = question.get("steps", pipeline.defaults.steps)
    guests = _guests(pipeline, question["requests"], question.get("policies", POLICIES), steps)
    free = go_out(pipeline, guests, store_bytes=PLENTY)
    budget = free.peak_bytes // OVER
    pressed = go_out(pipeline, guests, store_bytes=budget)
    again = go_out(pipeline, _replays(guests, pressed), store_bytes=PLENTY)

    gate, lost = Gate(), pressed.figures.evictions + pressed.figures.refused
    gate.check("evicted_or_refused", lost, holds=lost > 0)
    # Where nothing at all is held, nothing can go wrong.
    gate.check("held_evaluations", pressed.num_held, holds=pressed.num_held > 0)
    replayed = again.journals == pressed.journals
    gate.check("journals_replayed", replayed, holds=replayed)
    if not gate.ok:
        return {"gate": gate.as_json()}
    pairs = zip(pressed.pictures, again.pictures, strict=True)
    correct = sum(a.tobytes() == b.tobytes() for a, b in pairs)
    most = max(pressed.peak_bytes, pressed.figures.allocated_bytes)
    row = {
        "what": f"{len(guests)} requests that want {OVER} times the budget",
        "policies": list(question.get("policies", POLICIES)),
        "threads": torch.get_num_threads(),
        "wanted_bytes": free.peak_bytes,
        "budget_bytes": budget,
        "peak_bytes": pressed.peak_bytes,
        "allocated_bytes": pressed.figures.allocated_bytes,
        "evictions": pressed.figures.evictions,
        "refused": pressed.figures.refused,
        "held_with_room": free.num_held,
        "held": pressed.num_held,
        "evaluations": sum(map(len, pressed.journals)),
    }
    return {
        "gate": gate.as_json(),
        "exceeded": max(most - budget, 0),
        "correct": correct / len(guests),
        "rows": [row, *operation_rows(question["rounds"])],
    }


def _guests(pipeline: Pipeline, requests: int, policies: Sequence[str], steps: int) -> list[Guest]:
    specs, prompts = cycle(policies), cycle(PROMPTS)
    return [
        Guest(
            prompt=next(prompts),
            policy=build_policy(next(specs)),
            size=pipeline.defaults.size,
            steps=steps,
            guidance=pipeline.defaults.guidance,
            seed=i,
        )
        for i in range(requests)
    ]


def _replays(guests: Sequence[Guest], outing: Outing) -> list[Guest]:
    return [
        replace(guest, policy=replay_of(guest.policy, journal))
        for guest, journal in zip(guests, outing.journals, strict=True)
    ]


if __name__ == "__main__":
    serve_child(answer)
