"""Samplers: the path of a sample through noise levels, and the steps along it.

Everything lives in one representation: `x = alpha * x0 + sigma * eps`, with unit Gaussian `eps`.
Flow models have `alpha = 1 - s, sigma = s`; the others `alpha**2 + sigma**2 = 1`, from their table
of betas.

| sampler   | flow | epsilon | v_prediction | evaluations   | grid as in diffusers'            |
|-----------|------|---------|--------------|---------------|----------------------------------|
| `euler`   | yes  |         |              | steps         | FlowMatchEulerDiscreteScheduler  |
| `heun`    | yes  |         |              | 2 * steps - 1 | FlowMatchHeunDiscreteScheduler   |
| `dpm++2m` | yes  | yes     | yes          | steps         | DPMSolverMultistepScheduler      |
| `unipc`   | yes  |         |              | steps         | UniPCMultistepScheduler          |
| `ddim`    |      | yes     | yes          | steps         | DDIMScheduler, eta = 0           |

Euler and DDIM are of first order, Heun and DPM-Solver++(2M) of second, UniPC of third.

Spacings: `uniform`, `karras`, `exponential` for flow; `linspace`, `leading`, `trailing` for the
others, and with `dpm++2m` also `karras` and `exponential`. `shift` is for flow.

    noise = NoiseModel.from_config(json.loads(path.read_text()))     # scheduler_config.json
    schedule = build_schedule(noise, None, 28)                       # host only
    x, memory = initial_scale(schedule) * unit_noise, ()
    for evaluation in range(schedule.num_evaluations):
        prediction = denoise(x, schedule.timesteps[evaluation])
        x, memory = step(schedule, evaluation, x, prediction, memory)

A solver of your own is a function like those in `solvers.py`, named in a mapping:
`samplers = {**SAMPLERS, "mine": Sampler(spacings=..., grid=flow_match_grid, solve=mine)}`, handed
to `build_schedule` and `step`.
"""

from __future__ import annotations

from musiva.samplers.catalog import SAMPLERS, Sampler, build_schedule, initial_scale, step
from musiva.samplers.guidance import Rule, guide
from musiva.samplers.noise import NoiseModel, Prediction
from musiva.samplers.schedules import Grid, Schedule, ddim_grid, dpm_grid, flow_match_grid
from musiva.samplers.solvers import (
    Memory,
    Solver,
    predicted_clean,
    predicted_noise,
    prediction_from_clean,
)
from musiva.samplers.weights import clean_weights, leap

__all__ = [
    "SAMPLERS",
    "Grid",
    "Memory",
    "NoiseModel",
    "Prediction",
    "Rule",
    "Sampler",
    "Schedule",
    "Solver",
    "build_schedule",
    "clean_weights",
    "ddim_grid",
    "dpm_grid",
    "flow_match_grid",
    "guide",
    "initial_scale",
    "leap",
    "predicted_clean",
    "predicted_noise",
    "prediction_from_clean",
    "step",
]
