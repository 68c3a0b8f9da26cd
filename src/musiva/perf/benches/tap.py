"""The step loop with a tap: the latents of pictures as they are when their last step is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from musiva.core.pack import ROW_ALIGN
from musiva.core.types import DecodeItem, Request, StepPlan, StepResult
from musiva.engine import InlineExecutor, Pipeline, Scheduler, StepLoop
from musiva.policy import Never, Trip
from musiva.samplers import build_schedule

__all__ = ["Visit", "final_latents"]


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that comes before step `arrives` and, if `leaves` is a number, is cancelled before
    that one.

    start: a latent as the class has it, instead of the noise of its seed.
    """

    request: Request
    arrives: int = 0
    leaves: int | None = None
    start: Tensor | None = None


class Tap(InlineExecutor):
    """Keeps a copy of every latent that is about to be decoded."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.latents: dict[str, Tensor] = {}

    def execute(self, plan: StepPlan) -> StepResult:
        samples = [item.sample for item in plan.items if isinstance(item, DecodeItem)]
        self.latents |= {sample: self.latent(sample).clone() for sample in samples}
        return super().execute(plan)


def final_latents(pipeline: Pipeline, visits: Sequence[Visit]) -> Mapping[str, Tensor]:
    """Run all visits in shared packs; the latent of the first picture of each request that was not
    cancelled, by the request's id. Raises what a request failed of.
    """
    executor = Tap(pipeline)
    loop = StepLoop(executor, Scheduler.Config().build())
    waiting = sorted(visits, key=lambda visit: visit.arrives)
    step = 0
    while True:
        while waiting and (waiting[0].arrives <= step or not loop.state.samples):
            _submit(loop, pipeline, waiting.pop(0))
        for visit in visits:
            if visit.leaves == step:
                loop.cancel(visit.request.id)
        events = loop.step()
        if events is None and not waiting:
            return {
                sample.removesuffix("/0"): latent for sample, latent in executor.latents.items()
            }
        for event in events or []:
            if event.error is not None:
                raise event.error
        step += 1


def _submit(loop: StepLoop, pipeline: Pipeline, visit: Visit) -> None:
    request, path = visit.request, visit.request.path
    schedule = build_schedule(
        pipeline.noise, path.sampler, path.steps, spacing=path.spacing, shift=path.shift
    )
    rows = (
        -(-pipeline.num_tokens(request.size, request.frames) // ROW_ALIGN)
        * ROW_ALIGN
        * (2 if request.guided else 1)
    )
    latents = None if visit.start is None else [visit.start]
    trip = Trip.along(schedule, guided=request.guided)
    loop.submit(request, policies=[Never()], trip=trip, rows=rows, latents=latents)
