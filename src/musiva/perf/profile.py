"""Fitting a cost model to a machine: many small loads of every mixture, timed step by step."""

from __future__ import annotations

import logging
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from musiva.core.env import Env
from musiva.core.errors import BadCheckpoint
from musiva.core.types import StepPlan, StepResult
from musiva.cost import CostModel, Drift, Machine, Profile, Work, fit, profile_path
from musiva.engine import InlineExecutor, Intake, Pipeline, Scheduler, StepLoop
from musiva.engine.scheduler.prices import Tariff, work_of
from musiva.perf.measure import percentile

__all__ = ["Repeated", "machine_of", "measure_profile", "profile_of", "repeated_steps"]

log = logging.getLogger(__name__)
Tell = Callable[[float], None]
# Of a probe, how much of its time goes into loads that it is then compared with, and how often
# each of these runs.
CHECK_SHARE, RUNS = 0.3, 5
QUICK_SECONDS = 4.0
# Loads without which there is too little to fit, however long they take.
LEAST = 8
# Both skip something whatever they measure, on a path of a few evaluations too.
CALIBRATED, UNCALIBRATED = "adaptive:tolerance=0.28,gain=0", "interval:interval=2,warmup=1"
WORDS = ("a red fox", "and", "two blue birds", "under", "an old tree", "in", "the snow", "near")


@dataclass(frozen=True, slots=True)
class Repeated:
    """A step that came several times, always after the same steps. work: what it does. predicted:
    what a cost model said of each time just before, corrected by all steps until then.
    """

    work: Work
    seconds: tuple[float, ...]
    predicted: tuple[float, ...]

    @property
    def error(self) -> float:
        """Relative, of the medians."""
        return abs(statistics.median(self.predicted) / statistics.median(self.seconds) - 1.0)

    @property
    def scatter(self) -> list[float]:
        """Of each time against the median: what the machine itself does not repeat."""
        median = statistics.median(self.seconds)
        return [abs(seconds / median - 1.0) for seconds in self.seconds]


@dataclass(slots=True)
class Recorder:
    """Enters the seconds of each step by its work. loop: whose steps they are."""

    measured: list[tuple[Work, float]] = field(default_factory=list)
    loop: StepLoop | None = None

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        failed = any(outcome.error is not None for outcome in result.outcomes)
        if plan.items and not failed and self.loop is not None:
            self.measured.append((work_of(plan, self.loop.state), result.seconds))


def machine_of(pipeline: Pipeline) -> Machine:
    """What a profile of this model, here and now, is for."""
    device = pipeline.device
    weight = next(pipeline.denoiser.parameters())
    count = sum(p.numel() for p in pipeline.denoiser.parameters())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Machine(
        model=pipeline.name,
        parameters=count,
        device=name,
        dtype=str(weight.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        compiled=pipeline.compiled,
    )


def profile_of(pipeline: Pipeline, env: Env | None = None, tell: Tell = lambda _: None) -> Profile:
    """The stored one of this machine, or else a quick one, which is stored then."""
    path = profile_path((env or Env.read()).cache_dir, machine_of(pipeline))
    try:
        if stored := Profile.read(path):
            return stored
    except BadCheckpoint as error:
        log.warning("%s", error)
    found = measure_profile(pipeline, seconds=QUICK_SECONDS, check=False, tell=tell)
    try:
        found.write(path)
    except OSError as error:
        log.warning("the profile could not be kept at %s: %s", path, error)
    return found


def measure_profile(
    pipeline: Pipeline, *, seconds: float, check: bool = True, tell: Tell = lambda _: None
) -> Profile:
    """A cost model from about so many seconds of work, and how well it holds. check: measure that
    too. tell: the share of the time that has passed.
    """
    start = time.perf_counter()
    fitting = seconds * (1.0 - CHECK_SHARE if check else 1.0)
    draw, recorder = random.Random(0), Recorder()
    _load(pipeline, draw, None)  # the first steps of a process are slower than all others
    loads = 0
    while (passed := time.perf_counter() - start) < fitting or loads < LEAST:
        tell(min(passed / seconds, 1.0))
        _load(pipeline, draw, recorder)
        loads += 1
    cost = fit(recorder.measured)
    errors: dict[str, float] = {}
    if check:
        errors = errors_of(
            list(repeated_steps(pipeline, cost, draw, seconds=seconds - fitting, runs=RUNS))
        )
    tell(1.0)
    return Profile(
        machine=machine_of(pipeline),
        cost=cost,
        steps=len(recorder.measured),
        seconds=time.perf_counter() - start,
        errors=errors,
    )


def errors_of(steps: list[Repeated]) -> dict[str, float]:
    """Relative errors of predictions, and what single times differ from their median."""
    if not steps:
        return {}
    errors = [step.error for step in steps]
    scatter = [value for step in steps for value in step.scatter]
    return {
        "median": statistics.median(errors),
        "p95": percentile(errors, 95),
        "repeatability": statistics.median(scatter),
        "repeatability_p95": percentile(scatter, 95),
    }


def repeated_steps(
    pipeline: Pipeline, cost: CostModel, draw: random.Random, *, seconds: float, runs: int
) -> Iterator[Repeated]:
    """Of mixed loads for so many seconds, each of which runs several times from its beginning, as
    steps come in use: one that is repeated at once finds all it needs in the caches.
    """
    start, drift = time.perf_counter(), Drift()
    while time.perf_counter() - start < seconds:
        seed, times = draw.random(), []
        for _ in range(runs):
            recorder, told = Recorder(), []
            _load(pipeline, random.Random(seed), recorder)
            for work, taken in recorder.measured:
                expected = cost.seconds(work)
                told.append((work, taken, expected * drift.factor(work.kind)))
                drift = drift.after(work.kind, expected, taken)
            times.append(told)
        for (work, *_), *others in (zip(*step, strict=True) for step in zip(*times, strict=True)):
            taken, predicted = others
            yield Repeated(work, taken, predicted)


def _load(pipeline: Pipeline, draw: random.Random, recorder: Recorder | None) -> None:
    """One to eight requests of random sizes, guidance and policies, in packs of a random size."""
    max_rows = draw.choice((16, 128, 256, 512, 1024, 2048, 4096))
    scheduler = Scheduler.Config(discipline="fifo", max_rows=max_rows).build()
    loop = StepLoop(
        InlineExecutor(pipeline), scheduler, None if recorder is None else recorder.observe
    )
    if recorder is not None:
        recorder.loop = loop
    intake = Intake(pipeline, tariff=Tariff.guess())
    sizes, counts = _sizes(pipeline), _counts(pipeline)
    for i in range(draw.choice((1, 1, 2, 3, 4, 6, 8))):
        skipping = UNCALIBRATED if pipeline.calibration is None else CALIBRATED
        request = intake.request(
            " ".join(draw.choices(WORDS, k=draw.randint(1, 9))),
            size=draw.choice(sizes),
            frames=draw.choice(counts) if len(counts) > 1 else counts[0],
            steps=draw.randint(6, 10),
            seed=i,
            guidance=draw.choice((1.0, pipeline.defaults.guidance, pipeline.defaults.guidance)),
            policy=draw.choice(("never", skipping)),
            request_id=f"r{i}",
        )
        loop.submit(
            request,
            policies=intake.policies_of(request),
            trip=intake.trip_of(request),
            rows=intake.rows_of(request),
        )
    while loop.step() is not None:
        pass


def _sizes(pipeline: Pipeline) -> list[tuple[int, int]]:
    """Up to four sides between the smallest and the largest, and all their rectangles."""
    low, high, unit = pipeline.defaults.min_side, pipeline.defaults.max_side, pipeline.unit
    most = (high - low) // unit
    sides = sorted({low + unit * round(most * k / 3) for k in range(4)})
    return [(width, height) for width in sides for height in sides]


def _counts(pipeline: Pipeline) -> Sequence[int]:
    """Up to three numbers of frames, from the smallest to that of a clip by default."""
    if pipeline.clips is None:
        return (1,)
    usual = [count for count in pipeline.clips.counts if count <= pipeline.defaults.frames]
    return sorted({usual[0], usual[len(usual) // 2], usual[-1]})
