"""`musiva calibrate`: what is measured of a model once, so that quality can be promised.

Dense runs of some prompts give the moments of the calibrated forecast, runs with forecasts its
correction and its usual error (`musiva.policy.kriging`); then pictures of the policy `adaptive` at
several tolerances are compared with those of the dense run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from musiva.core.errors import InvalidInput
from musiva.core.types import Path
from musiva.engine.pipeline import Pipeline
from musiva.perf.calibration.fit import ROUNDS, correct, moments
from musiva.perf.calibration.runs import Prompts
from musiva.perf.calibration.table import measure
from musiva.policy import Calibration, Conditions, Kriging

__all__ = ["PATH", "Plan", "calibrate"]

# Enough evaluations of a solver of second order for a path to be the model's own.
PATH = Path(steps=50, sampler="dpm++2m")
MIN_PROMPTS = 8
FIRST_SEED = 1 << 40
# The forecast that a coarse unconditional branch is compared with goes over this share of the path.
USUAL_GAP = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """prompts: at least 8, of the kind that users ask for. size, guidance: what it is measured at;
    None is the model's default. steps: numbers of steps that qualities are measured at.
    """

    prompts: Sequence[str]
    steps: Sequence[int]
    size: tuple[int, int] | None = None
    guidance: float | None = None


def calibrate(
    pipeline: Pipeline, plan: Plan, tell: Callable[[str], None] = lambda line: None
) -> Calibration:
    """Measure a model; `tell` gets a line about each part that is done. Raises InvalidInput for too
    few prompts, a size that the model does not draw, or a model of clips.
    """
    if pipeline.clips is not None:
        raise InvalidInput("model", pipeline.name, "a model of pictures; this one makes clips")
    if len(plan.prompts) < MIN_PROMPTS:
        raise InvalidInput("prompts", len(plan.prompts), f"at least {MIN_PROMPTS} of them")
    defaults = pipeline.defaults
    size = defaults.size if plan.size is None else plan.size
    guidance = defaults.guidance if plan.guidance is None else plan.guidance
    pipeline.check_size(size)
    conditions = Conditions(PATH.steps, str(PATH.sampler), guidance, size, len(plan.prompts))
    runs = Prompts(
        pipeline, plan.prompts, PATH, size=size, guidance=guidance, first_seed=FIRST_SEED
    )
    dense: list[list[Tensor]] = []
    calibration: Calibration | None = None
    for latents, found in moments(runs, conditions):
        dense, calibration = [*dense, *latents], found
        tell(f"dense runs: {len(dense)} of {len(plan.prompts)}")
    assert calibration is not None
    for number, corrected in enumerate(correct(runs, dense, calibration), 1):
        calibration = corrected
        tell(f"runs with forecasts: round {number} of {ROUNDS}")
    del dense
    calibration = replace(calibration, coarse=_coarse_pays(runs, calibration))
    rows, calibrated = [], replace(pipeline, calibration=calibration)
    # Other pictures than those that the forecasts were fitted to.
    for row in measure(calibrated, plan, FIRST_SEED + len(plan.prompts)):
        rows.append(row)
        tell(
            f"{row.steps} steps, tolerance {row.tolerance:.3f}: {row.psnr:.1f} dB on average, "
            f"{row.psnr_low:.1f} kept by 95 %, cost {row.cost:.2f}"
        )
    return replace(calibration, table=tuple(rows))


def _coarse_pays(runs: Prompts, calibration: Calibration) -> bool:
    """Whether an unconditional branch at half the resolution, at the start, is wrong by less than
    half of what the first forecast is wrong by anyway, in squares.
    """
    if runs.guidance <= 1:
        return False
    start, there = runs.schedule.place(0), round(USUAL_GAP * runs.schedule.num_evaluations)
    kriging = Kriging(calibration, runs.pipeline.denoiser.patch)
    usual = kriging.usual_error((start,), runs.schedule.place(there)) ** 2
    return runs.coarse_error(range(min(len(runs.prompts), 16))) < 0.5 * usual
