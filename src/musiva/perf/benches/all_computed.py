"""Child process: a policy that computes everything, against the dense run."""

from __future__ import annotations

import logging
from dataclasses import asdict

import numpy as np

from musiva.engine import Engine
from musiva.perf.benches.held_out import SCENES
from musiva.perf.child import Message, serve_child
from musiva.perf.measure import compare
from musiva.policy import with_own

__all__ = ["answer"]

STEPS = 14


def answer(question: Message) -> Message:
    """question: model, policy, pairs."""
    # That it skipped nothing is meant.
    logging.getLogger("musiva.engine.state").setLevel(logging.ERROR)
    policy, policies = with_own(question["policy"])
    config = Engine.Config(policies=policies)
    with Engine.load(str(question["model"]), config=config) as engine:

        def dense() -> np.ndarray:
            return np.asarray(engine.generate(SCENES[0], seed=1, steps=STEPS)[0])

        def computed() -> np.ndarray:
            options = {"steps": STEPS, "policy": policy}
            return np.asarray(engine.generate(SCENES[0], seed=1, **options)[0])

        equal = bool(np.array_equal(dense(), computed()))
        found = compare(computed, dense, pairs=question["pairs"])
    return {"equal": equal, "row": asdict(found)}


if __name__ == "__main__":
    serve_child(answer)
