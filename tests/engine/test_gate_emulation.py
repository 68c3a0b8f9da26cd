"""Gates against the caches that they are: written down once more, slowly, for one picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.stepping import Bench
from torch import Tensor

from musiva.core.pack import Pack, patchify
from musiva.engine import load_pipeline
from musiva.engine.pipeline import Pipeline
from musiva.engine.runner import PlainRun
from musiva.models import Inputs
from musiva.samplers import build_schedule, guide, initial_scale, step


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


class Watching(PlainRun):
    """Notes what the first block's first layer is given."""

    seen: Tensor

    def linear(self, site, layer, x, pack, activation=None):
        if site == "transformer_blocks.0.attn1.to_q+to_k+to_v":
            self.seen = x
        return super().linear(site, layer, x, pack, activation)


class Emulated:
    """The published caches as they are written: both branches one batch, one sample at a time, with
    everything computed and then thrown away. Notes the evaluations that would have been computed.
    """

    def __init__(self, pipeline: Pipeline, bench: Bench, **request: object) -> None:
        self.pipeline, self.run = pipeline, Watching(pipeline.linears)
        self.request = bench.front.request(**request)
        self.computed: list[int] = []
        self.reference: Tensor | None = None
        self.residual: Tensor | None = None
        self.total = 0.0

    def evaluate(self, inputs: Inputs, pack: Pack, evaluation: int, last: int) -> Tensor:
        model = self.pipeline.denoiser
        before = model.embed(inputs, pack, self.run)
        after = first = model.segments[0][1](before, pack, self.run)
        for _, segment in model.segments[1:]:
            after = segment(after, pack, self.run)
        image = self.chosen(before["image"], first["image"], after["image"], evaluation, last)
        return model.head({**after, "image": image}, pack, self.run)

    def chosen(
        self, before: Tensor, first: Tensor, after: Tensor, evaluation: int, last: int
    ) -> Tensor:
        raise NotImplementedError

    @torch.inference_mode()
    def latent(self) -> Tensor:
        """[L, C]: of the finished picture."""
        request, pipeline = self.request, self.pipeline
        path = request.path
        schedule = build_schedule(pipeline.noise, path.sampler, path.steps)
        shape = pipeline.latent_shape(request.size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(request.seed))
        x, grid = patchify(noise * initial_scale(schedule), pipeline.denoiser.patch)
        texts = pipeline.text.encode([request.prompt, request.negative_prompt])
        pack = Pack.build([grid] * 2, [len(text) for text in texts])
        memory: tuple[Tensor, ...] = ()
        for evaluation, time in enumerate(schedule.timesteps):
            inputs = Inputs(
                pack.gather([x, x]),
                torch.full((pack.num_mod_rows,), time),
                pack.gather(texts, "text"),
                pipeline.conditions([], [request.guidance] * 2, pack.num_mod_rows),
            )
            both = self.evaluate(inputs, pack, evaluation, schedule.num_evaluations - 1)
            said = [pipeline.clean_channels(y).float() for y in pack.split(both)]
            prediction = guide(said[0], said[1], request.guidance)
            x, memory = step(schedule, evaluation, x, prediction, memory)
        return x


class FirstBlockCache(Emulated):
    """ParaAttention: threshold 0.08, two steps of warm-up, three hits in a row at most."""

    def chosen(self, before, first, after, evaluation, last):
        change = first - before
        same = False
        if evaluation >= 2 and evaluation - self.computed[-1] <= 3:
            same = (change - self.reference).abs().mean() / self.reference.abs().mean() < 0.08
        if same:
            return first + self.residual
        self.computed.append(evaluation)
        self.reference, self.residual = change, after - first
        return after


class TeaCacheOfThePaper(Emulated):
    """Threshold 0.15, the first and the last step computed, four hits in a row at most."""

    def chosen(self, before, first, after, evaluation, last):
        previous, self.reference = self.reference, self.run.seen
        if evaluation not in (0, last):
            distance = (self.reference - previous).abs().mean() / previous.abs().mean()
            self.total += 0.5 * distance**2 + distance
            if self.total < 0.15 and evaluation - self.computed[-1] <= 4:
                return before + self.residual
        self.total = 0.0
        self.computed.append(evaluation)
        self.residual = after - before
        return after


@pytest.mark.parametrize(
    ("policy", "rival"),
    [("first_block", FirstBlockCache), ("tea_cache:threshold=0.15,c2=0.5", TeaCacheOfThePaper)],
)
@pytest.mark.parametrize("sampler", ["euler", "dpm++2m"])
def test_agrees_with_an_emulation_that_computes_everything(
    pipeline: Pipeline, policy: str, rival: type[Emulated], sampler: str
) -> None:
    # Whole pages of rows, so that the emulation's batch has no padding to average over.
    request = {"prompt": "a red fox", "size": (64, 64), "steps": 14, "seed": 2, "guidance": 3.0}
    request["sampler"] = sampler
    bench = Bench(pipeline)
    emulated = rival(pipeline, bench, **request)
    expected = emulated.latent()
    assert 3 < len(emulated.computed) < 12
    bench.submit("r", **request, policy=policy)
    bench.run(14 + 1)
    assert [i for i, held in enumerate(bench.held("r/0")) if not held] == emulated.computed
    slot = bench.executor._slots["r/0"]
    torch.testing.assert_close(slot.latent_LC, expected, rtol=0, atol=1e-6)
