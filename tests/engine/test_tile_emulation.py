"""Region-adaptive sampling, and tiles with forecasts, against what they are: written down once
more, slowly, for one picture, with everything computed and then thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from tests.stepping import Bench
from torch import Tensor

from musiva.core.pack import Pack, patchify
from musiva.core.run import QKV, Over, Streams
from musiva.engine import load_pipeline
from musiva.engine.pipeline import Pipeline
from musiva.engine.runner import PlainRun
from musiva.models import Inputs
from musiva.samplers import build_schedule, guide, initial_scale, step

REQUEST = {"prompt": "a red fox", "size": (72, 56), "steps": 14, "seed": 2, "guidance": 3.0}
SIDE = 2


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


class StaleKeys(PlainRun):
    """All rows run; keys and values of absent tokens are what they were when those ran last."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline.linears)
        self.is_there_L = torch.ones(0, dtype=torch.bool)
        self.kept: dict[tuple[str, int, int], Tensor] = {}

    def attend(
        self, site: str, qkv: Mapping[str, QKV], pack: Pack, over: Over = "sample"
    ) -> Streams:
        q, *keys = qkv["image"]
        if keys[0] is None:
            return super().attend(site, qkv, pack, over)
        for i, s in enumerate(pack.image.segments):
            at = slice(s.start, s.start + s.length)
            for j, x in enumerate(keys):
                assert x is not None
                old = self.kept.get((site, i, j), x[at])
                self.kept[site, i, j] = torch.where(self.is_there_L[:, None, None], x[at], old)
                keys[j] = x = x.clone()
                x[at] = self.kept[site, i, j]
        return super().attend(site, {**qkv, "image": (q, *keys)}, pack, over)


class Emulated:
    """One picture by Euler's method on a flow, token by token. chosen: which tiles run at each
    evaluation, by what their tokens' predictions varied.
    """

    def __init__(self, pipeline: Pipeline, bench: Bench, order: int) -> None:
        self.pipeline, self.order = pipeline, order
        self.request = bench.front.request(**REQUEST, sampler="euler")
        self.masks: list[tuple[bool, ...]] = []

    def choose(self, evaluation: int, spread: Sequence[float], held: Sequence[int]) -> set[int]:
        """Warm-up of 3, then every fifth; else the lower half, and what was held 3 times."""
        count = len(spread)
        if evaluation <= 2 or (evaluation - 2) % 5 == 0:
            return set(range(count))
        ranked = sorted(range(count), key=lambda i: spread[i] / math.exp(0.1 * held[i]))
        return {*ranked[: math.ceil(count / 2)], *(i for i in range(count) if held[i] >= 3)}

    @torch.inference_mode()
    def latent(self) -> Tensor:
        """[L, C]: of the finished picture."""
        request, pipeline = self.request, self.pipeline
        run, model = StaleKeys(pipeline), pipeline.denoiser
        schedule = build_schedule(pipeline.noise, request.path.sampler, request.path.steps)
        noise = torch.randn(
            pipeline.latent_shape(request.size),
            generator=torch.Generator().manual_seed(request.seed),
        )
        x, grid = patchify(noise * initial_scale(schedule), model.patch)
        tile_L = [
            y // SIDE * -(-grid[2] // SIDE) + z // SIDE
            for y in range(grid[1])
            for z in range(grid[2])
        ]
        count = max(tile_L) + 1
        tokens = [[t for t, tile in enumerate(tile_L) if tile == i] for i in range(count)]
        texts = pipeline.text.encode([request.prompt, request.negative_prompt])
        pack = Pack.build([grid] * 2, [len(text) for text in texts])
        spread, held = [0.0] * count, [0] * count
        history: list[list[tuple[float, Tensor]]] = [[] for _ in tile_L]
        for evaluation, time in enumerate(schedule.timesteps):
            chosen = self.choose(evaluation, spread, held)
            self.masks.append(tuple(i in chosen for i in range(count)))
            run.is_there_L = torch.tensor([tile in chosen for tile in tile_L])
            inputs = Inputs(
                pack.gather([x, x]),
                torch.full((pack.num_mod_rows,), time),
                pack.gather(texts, "text"),
            )
            streams = model.embed(inputs, pack, run)
            for _, segment in model.segments:
                streams = segment(streams, pack, run)
            said = [y.float() for y in pack.split(model.head(streams, pack, run))]
            velocity = guide(said[0], said[1], request.guidance)
            sigma = schedule.level(evaluation)[1]
            place = schedule.place(evaluation)
            clean = x - sigma * velocity
            for token, tile in enumerate(tile_L):
                if tile in chosen:
                    history[token].append((place, clean[token].clone()))
                else:
                    clean[token] = self.forecast(history[token], place)
            for i in range(count):
                held[i] = 0 if i in chosen else held[i] + 1
                if i in chosen:
                    spread[i] = float(velocity[tokens[i]].std(correction=0))
            x, _ = step(schedule, evaluation, x, (x - clean) / sigma, ())
        return x

    def forecast(self, history: Sequence[tuple[float, Tensor]], place: float) -> Tensor:
        """Held, or on the line through the two values that this very token had last."""
        (*_, (before, older), (at, newest)) = history
        if self.order == 0:
            return newest
        return newest + (place - at) / (at - before) * (newest - older)


@pytest.mark.parametrize("order", [0, 1])
def test_agrees_with_an_emulation_that_computes_everything(pipeline: Pipeline, order: int) -> None:
    bench = Bench(pipeline)
    emulated = Emulated(pipeline, bench, order)
    expected = emulated.latent()
    policy = f"ras:warmup=3,interval=5,max_age=3,share=0.5,side={SIDE},order={order}"
    bench.submit("r", **REQUEST, sampler="euler", policy=policy)
    bench.run(14 + 1)
    every = (True,) * len(emulated.masks[0])
    assert [a.tiles or every for a in bench.journal.actions["r/0"]] == emulated.masks
    assert len({*emulated.masks}) > 4
    slot = bench.executor._slots["r/0"]
    torch.testing.assert_close(slot.latent_LC, expected, rtol=0, atol=1e-5)
    # The tiles matter: dense runs are elsewhere.
    bench.submit("d", **REQUEST, sampler="euler")
    bench.run(14)
    assert float((bench.executor._slots["d/0"].latent_LC - expected).abs().max()) > 1e-2
