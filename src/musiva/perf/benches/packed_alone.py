"""Child process: latents after 20 steps, packed with strangers that come and go, against alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from musiva.core.types import Path, Request
from musiva.engine import Pipeline, load_pipeline
from musiva.perf.benches.tap import Visit, final_latents
from musiva.perf.child import Message, serve_child

__all__ = ["answer"]

PROMPTS = (
    "red apple",
    "a fox",
    "an old bicycle in the rain",
    "snow",
    "two green apples on a table",
)
STEPS = 20


def answer(question: Message) -> Message:
    """question: model, device, and how many companies each target is tried in."""
    pipeline = load_pipeline(str(question["model"]), device=str(question["device"]))
    targets = _targets(pipeline)
    alone = {target.id: final_latents(pipeline, [Visit(target)])[target.id] for target in targets}
    differing, compared, largest = [], 0, 0.0
    for company in range(question["companies"]):
        found = final_latents(pipeline, _visits(pipeline, targets, company))
        for target in targets:
            compared += 1
            if not torch.equal(found[target.id], alone[target.id]):
                error = float((found[target.id] - alone[target.id]).abs().max())
                largest = max(largest, error)
                differing.append({"target": target.id, "company": company, "error": error})
    finite = all(bool(latent.isfinite().all()) for latent in alone.values())
    threads = torch.get_num_threads()
    return {
        "compared": compared,
        "differing": differing,
        "max_abs_error": largest,
        "finite": finite,
        "threads": threads,
    }


def _targets(pipeline: Pipeline) -> list[Request]:
    """One with guidance, one without, of different sizes; the smallest and an uneven one."""
    low, unit = pipeline.defaults.min_side, pipeline.unit
    uneven = (low + unit, low + 2 * unit)
    shapes = [(pipeline.defaults.size, 4.0), ((low, low), 1.0), (uneven, 3.0)]
    return [
        _request(f"target {i}", i, size, STEPS, scale) for i, (size, scale) in enumerate(shapes)
    ]


def _visits(pipeline: Pipeline, targets: Sequence[Request], company: int) -> list[Visit]:
    """The targets among six strangers, in an order and at times of their own in every company."""
    draw = random.Random(company)
    low, high, unit = pipeline.defaults.min_side, pipeline.defaults.max_side, pipeline.unit
    sides = list(range(low, min(high, 2 * low + 4 * unit) + 1, unit))
    visits = [Visit(target, draw.randint(0, 6)) for target in targets]
    for i in range(6):
        size, steps = (draw.choice(sides), draw.choice(sides)), draw.randint(3, 30)
        stranger = _request(
            f"stranger {i}", draw.randint(0, 999), size, steps, draw.choice((1.0, 2.0, 7.5))
        )
        arrives = draw.randint(0, 15)
        visits.append(
            Visit(stranger, arrives, arrives + draw.randint(2, 9) if i % 3 == 0 else None)
        )
    draw.shuffle(visits)
    return visits


def _request(name: str, seed: int, size: tuple[int, int], steps: int, guidance: float) -> Request:
    prompt = PROMPTS[seed % len(PROMPTS)]
    return Request(
        id=name, prompt=prompt, size=size, path=Path(steps=steps), seed=seed, guidance=guidance
    )


if __name__ == "__main__":
    serve_child(answer)
