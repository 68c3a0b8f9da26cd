"""Child process: whole pictures of a model: how far its default steps are from convergence, and
seconds each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from musiva.engine import Engine
from musiva.perf.child import Message, serve_child
from musiva.perf.quality import psnr
from musiva.perf.report import Gate

__all__ = ["PROMPTS", "answer"]

PROMPTS = (
    "red apple",
    "smiling face with sunglasses",
    "green cactus",
    "fox",
    "blue whale",
    "slice of pizza",
    "rocket",
    "snowman",
    "four leaf clover",
    "yellow taxi",
    "birthday cake",
    "soccer ball",
    "purple heart",
    "full moon face",
    "guitar",
    "umbrella with rain drops",
)
MORE_STEPS = 4


def answer(question: Message) -> Message:
    """question: model, number of prompts, repeats of each timing."""
    prompts = PROMPTS[: question["prompts"]]
    gate = Gate()
    with Engine.load(str(question["model"])) as engine:
        steps = engine.pipeline.defaults.steps
        again = [_bytes(engine, prompts[0]) for _ in range(2)]
        if not gate.check("same_seed_same_bytes", again[0] == again[1], holds=again[0] == again[1]):
            return {"gate": gate.as_json()}
        coarse = engine.generate(prompts, seed=1)
        fine = engine.generate(prompts, seed=1, steps=MORE_STEPS * steps)
        pairs = zip(coarse, fine, strict=True)
        decibels = [psnr(np.asarray(a), np.asarray(b)) for a, b in pairs]
        rows = [
            {"what": "seconds a picture", "size": f"{w}x{h}", "steps": steps, "seconds": seconds}
            for (w, h), seconds in _timings(engine, question["repeats"])
        ]
    rows.append(
        {
            "what": f"PSNR at {steps} against {MORE_STEPS * steps} steps",
            "prompts": prompts,
            "db": decibels,
        }
    )
    return {
        "gate": gate.as_json(),
        "steps": steps,
        "convergence_db": statistics.fmean(decibels),
        "rows": rows,
    }


def _bytes(engine: Engine, prompt: str) -> bytes:
    return engine.generate(prompt, seed=1)[0].tobytes()


def _timings(engine: Engine, repeats: int) -> Sequence[tuple[tuple[int, int], float]]:
    """Of one picture alone at the smallest, the default and the largest size."""
    defaults = engine.pipeline.defaults
    sizes = dict.fromkeys([(defaults.min_side,) * 2, defaults.size, (defaults.max_side,) * 2])
    found = []
    for size in sizes:
        engine.generate(PROMPTS[0], size=size, seed=0)
        taken = []
        for seed in range(repeats):
            start = time.perf_counter()
            engine.generate(PROMPTS[0], size=size, seed=seed)
            taken.append(time.perf_counter() - start)
        found.append((size, statistics.median(taken)))
    return found


if __name__ == "__main__":
    serve_child(answer)
