"""Child process: pictures of one engine at many settings, against its own dense run.

For each prompt the dense run comes first and the settings follow in turn, each alone on the
machine, so that what the machine does meanwhile hits all of them alike.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from musiva.core.types import Kind, StepPlan, StepResult
from musiva.engine import Engine
from musiva.perf.child import Message, serve_child
from musiva.perf.quality import foreground, psnr
from musiva.perf.report import Gate

__all__ = ["answer"]


@dataclass(slots=True)
class Stopwatch:
    """Wall time from the start of the first step that denoises to the end of the last one, with all
    that the host does between.
    """

    start: float | None = None
    end: float = 0.0

    def __call__(self, plan: StepPlan, result: StepResult) -> None:
        if plan.kind is Kind.DENOISE and plan.items:
            self.end = time.perf_counter()
            if self.start is None:
                self.start = self.end - result.seconds

    def read(self) -> float:
        """Seconds since the last call."""
        assert self.start is not None
        seconds, self.start = self.end - self.start, None
        return seconds


def answer(question: Message) -> Message:
    """question: model, prompts, first_seed, size, steps of the dense run; settings: [{"name",
    "options"}], options of a request; reference_steps: of another run that all are compared with
    as well, or null.

    rows: for each setting and the dense run, one list over prompts each of psnr, foreground, to the
    dense run; reference, to the other one; seconds; computed.
    """
    watch, gate = Stopwatch(), Gate()
    settings = [{"name": "dense", "options": {}}, *question["settings"]]
    columns = ("psnr", "foreground", "reference", "seconds", "computed")
    rows = {s["name"]: {column: [] for column in columns} for s in settings}
    with Engine.load(str(question["model"]), observe=watch) as engine:

        def draw(number: int, **options: object) -> tuple[np.ndarray, float, float]:
            asked = {"steps": question["steps"], "size": tuple(question["size"]), **options}
            prompt, seed = question["prompts"][number], question["first_seed"] + number
            for event in engine.stream(prompt, seed=seed, **asked):  # type: ignore[arg-type]
                if event.kind == "picture":
                    return np.asarray(event.picture), watch.read(), event.cost
            raise AssertionError("a stream ends with its picture")

        draw(0)
        same = bool(np.array_equal(draw(0)[0], draw(0)[0]))
        if not gate.check("same_seed_same_bytes", same, holds=same):
            return {"gate": gate.as_json()}
        for number in range(len(question["prompts"])):
            dense, *taken = draw(number)
            mask = foreground(dense)
            far = question["reference_steps"]
            reference = draw(number, steps=far)[0] if far else dense
            turn = number % max(len(question["settings"]), 1)
            for s in [settings[0], *settings[1 + turn :], *settings[1 : 1 + turn]]:
                picture, seconds, computed = dense, *taken
                if s["name"] != "dense":
                    picture, seconds, computed = draw(number, **s["options"])
                row = rows[s["name"]]
                row["psnr"].append(psnr(picture, dense))
                row["foreground"].append(psnr(picture, dense, mask))
                row["reference"].append(psnr(picture, reference))
                row["seconds"].append(seconds)
                row["computed"].append(computed)
    return {"gate": gate.as_json(), "rows": rows}


if __name__ == "__main__":
    serve_child(answer)
