"""Many prompts on one path at once, for measuring: the dense run, and runs with forecasts.

L tokens of a sample, C channels of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from musiva.core.pack import Grid, Pack, coarser, patchify
from musiva.core.types import Action, Path, Prompt
from musiva.engine.coarse import doubled, halved
from musiva.engine.gap import Gaps
from musiva.engine.pipeline import Pipeline
from musiva.engine.runner import PlainRun, forward
from musiva.models import Inputs
from musiva.policy import Anchors, Kriging
from musiva.samplers import (
    Memory,
    Schedule,
    build_schedule,
    initial_scale,
    leap,
    predicted_clean,
    prediction_from_clean,
    step,
)

__all__ = ["Gap", "Prompts"]

# Samples of a pack.
TOGETHER = 4
HELD = Action(compute=False, order=1, calibrated=True)
NOTHING = Prompt("", negative=True)


@dataclass(frozen=True, slots=True)
class Gap:
    """One gap of one sample in a run with forecasts: from evaluation `start`, which was computed,
    up to `stop`, the next one that is, or the end. anchors: what the gap was forecast from.
    landed: [L, C], the latent at its end. surprise: the mean square by which the forecast of
    `start` was wrong, except for the first. before: the evaluation computed before `start`.
    """

    sample: int
    start: int
    stop: int
    before: int | None
    anchors: Anchors
    landed: Tensor
    surprise: float | None


class Prompts:
    """The samples of some prompts, prompt i with seed `first_seed` + i, on one path."""

    def __init__(
        self,
        pipeline: Pipeline,
        prompts: Sequence[str],
        path: Path,
        *,
        size: tuple[int, int],
        guidance: float,
        first_seed: int,
    ) -> None:
        self.pipeline, self.size, self.guidance = pipeline, size, guidance
        self.prompts = [Prompt(text) for text in prompts]
        self.schedule: Schedule = build_schedule(
            pipeline.noise, path.sampler, path.steps, spacing=path.spacing, shift=path.shift
        )
        self.first_seed = first_seed
        self.grid: Grid = patchify(torch.empty(pipeline.latent_shape(size)), self._patch)[1]
        self._run = PlainRun(pipeline.linears)
        wanted = list(dict.fromkeys([NOTHING, *self.prompts] if guidance > 1 else self.prompts))
        self._texts = dict(zip(wanted, pipeline.text.words(wanted), strict=True))

    @property
    def _patch(self) -> Grid:
        return self.pipeline.denoiser.patch

    def noise(self, sample: int) -> Tensor:
        """[L, C]: the latent that a sample starts from, as the engine draws it."""
        generator = torch.Generator().manual_seed(self.first_seed + sample)
        noise_CHW = torch.randn(self.pipeline.latent_shape(self.size), generator=generator)
        noise_CHW = noise_CHW.to(self.pipeline.device) * initial_scale(self.schedule)
        return patchify(noise_CHW, self._patch)[0]

    def clean(self, samples: Sequence[int], latents: Sequence[Tensor], at: int) -> list[Tensor]:
        """The guided data prediction of each sample at an evaluation."""
        found = []
        for first in range(0, len(samples), TOGETHER):
            part = slice(first, first + TOGETHER)
            found += self._clean(samples[part], latents[part], at)
        return found

    def dense(self, samples: Sequence[int]) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """The dense run of each sample: its latents, one more than evaluations, and its data
        predictions.
        """
        total = self.schedule.num_evaluations
        latents = [[self.noise(i)] for i in samples]
        values: list[list[Tensor]] = [[] for _ in samples]
        memories: list[Memory] = [() for _ in samples]
        for at in range(total):
            cleans = self.clean(samples, [x[-1] for x in latents], at)
            for i, clean_LC in enumerate(cleans):
                values[i].append(clean_LC)
                moved_LC, memories[i] = self._step(at, latents[i][-1], clean_LC, memories[i])
                latents[i].append(moved_LC)
        return latents, values

    def forecast(
        self, samples: Sequence[int], computed: Sequence[int], kriging: Kriging
    ) -> list[Gap]:
        """Runs that compute the evaluations `computed`, ascending from 0, and forecast the
        others.
        """
        schedule, gaps, crossings = self.schedule, [], Gaps(kriging)
        latents = [self.noise(i) for i in samples]
        memories: list[Memory] = [() for _ in samples]
        known = [Anchors() for _ in samples]
        ends = [*computed[1:], schedule.num_evaluations]
        for number, (start, stop) in enumerate(zip(computed, ends, strict=True)):
            place, before = schedule.place(start), computed[number - 1] if number else None
            for i, clean_LC in enumerate(self.clean(samples, latents, start)):
                surprise = None
                if known[i].values:
                    guess_LC = kriging.estimate(known[i], place, self.grid)
                    surprise = float((clean_LC - guess_LC).square().mean())
                known[i] = known[i].add(clean_LC, place, 2, latents[i])
                x_LC, memory = self._step(start, latents[i], clean_LC, memories[i])
                if held := (HELD,) * (stop - start - 1):
                    begin = x_LC, memory, known[i], self.grid
                    landing = crossings.cross(schedule, start + 1, held, *begin, show=False)
                    x_LC, memory = landing.latent, landing.memory
                latents[i], memories[i] = x_LC, memory
                gaps.append(Gap(samples[i], start, stop, before, known[i], latents[i], surprise))
        return gaps

    def responses(self, start: int, stop: int) -> Tensor:
        """[P] float64: by how much the latent at `stop` grows with the data prediction at each of
        the P evaluations of a gap; a solver is linear in it.
        """
        units_PP = torch.eye(stop - start, dtype=torch.float64)
        nothing = torch.zeros_like(units_PP[0])
        memory: Memory = (nothing,) if start else ()
        return leap(self.schedule, start, nothing, memory, units_PP)[0]

    def _step(
        self, at: int, latent: Tensor, clean: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        prediction = prediction_from_clean(self.schedule, at, latent, clean)
        return step(self.schedule, at, latent, prediction, memory)

    def coarse_error(self, samples: Sequence[int]) -> float:
        """The mean square by which guided data predictions at the start change where the
        unconditional branch runs on a coarser grid (`Action.coarse`).
        """
        latents = [self.noise(i) for i in samples]
        small = [halved(x_LC, self.grid, self._patch) for x_LC in latents]
        nothing = [NOTHING] * len(samples)
        total = 0.0
        for first in range(0, len(samples), TOGETHER):
            part = slice(first, first + TOGETHER)
            cleans = []
            for rows, grid in ((latents[part], self.grid), (small[part], coarser(self.grid, 1))):
                predicted = self._predict(rows, grid, nothing[part], 0)
                pairs = zip(rows, predicted, strict=True)
                cleans.append([predicted_clean(self.schedule, 0, x, p) for x, p in pairs])
            for whole_LC, small_LC in zip(*cleans, strict=True):
                wrong_LC = doubled(small_LC, self.grid, self._patch) - whole_LC
                total += float(wrong_LC.square().mean())
        return (self.guidance - 1) ** 2 * total / len(samples)

    def _clean(self, samples: Sequence[int], latents: Sequence[Tensor], at: int) -> list[Tensor]:
        branches = 2 if self.guidance > 1 else 1
        prompts = [p for i in samples for p in (self.prompts[i], NOTHING)[:branches]]
        rows = [x for x in latents for _ in range(branches)]
        each = self._predict(rows, self.grid, prompts, at)
        guided = (
            [
                self.pipeline.guided(each[2 * i], each[2 * i + 1], self.guidance)
                for i in range(len(samples))
            ]
            if branches == 2
            else each
        )
        return [
            predicted_clean(self.schedule, at, x, p) for x, p in zip(latents, guided, strict=True)
        ]

    @torch.inference_mode()
    def _predict(
        self, latents: Sequence[Tensor], grid: Grid, prompts: Sequence[Prompt], at: int
    ) -> list[Tensor]:
        """What the model says of latents, all on one grid, each with its prompt."""
        pipeline = self.pipeline
        texts = [self._texts[p] for p in prompts]
        lengths = [words.rows_LD.shape[0] for words in texts]
        pack = Pack.build([grid] * len(latents), lengths, prompts, pipeline.device)
        times = [self.schedule.timesteps[at]] * len(latents)
        times += [0.0] * (pack.num_mod_rows - len(latents))
        inputs = Inputs(
            latent_TC=pack.gather(latents),
            timestep_M=torch.tensor(times, device=pipeline.device),
            text_TD=pack.gather([words.rows_LD for words in texts], "text"),
            extra=pipeline.conditions(texts, [self.guidance] * len(latents), pack.num_mod_rows),
        )
        predicted = pack.split(forward(pipeline.denoiser, inputs, pack, self._run))
        return [pipeline.clean_channels(p).float() for p in predicted]
