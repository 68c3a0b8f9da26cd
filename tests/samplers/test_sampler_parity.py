"""Timesteps and latents after every evaluation against the diffusers scheduler of the same name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from musiva.samplers import (
    NoiseModel,
    Schedule,
    build_schedule,
    initial_scale,
    predicted_clean,
    step,
)

# diffusers calls np.array on a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = (1, 2, 3, 7, 14, 15, 28)

# Both run freely on their own latents, so errors add up. Relative to max(1, max abs latent); the
# largest seen is 4e-6, from diffusers' fp32 coefficients (square roots and logarithms of 1 -
# alpha**2).
TOLERANCE = 1e-5


def tolerance(schedule: Schedule) -> float:
    """diffusers' Heun computes its second slope as (x - (x - slope * sigma)) / sigma in fp32.

    It loses what x is larger than `slope * sigma`: a unit in the last place of x, over sigma.
    """
    if schedule.sampler == "heun" and schedule.num_steps > 1:
        return TOLERANCE + 2.0**-24 / schedule.sigmas[-2]
    return TOLERANCE


SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
PIXART = {
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "solver_order": 2,
    "solver_type": "midpoint",
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "linspace",
    "trained_betas": None,
    "use_karras_sigmas": False,
    "variance_type": None,
}
FLOW_DPM = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
UNCLIPPED = {"clip_sample": False}
LEADING = {"timestep_spacing": "leading"}
V = {"prediction_type": "v_prediction"}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **V}

CASES: dict[str, tuple[type, dict[str, object]]] = {
    "euler": (FlowMatchEulerDiscreteScheduler, {}),
    "euler-shift3": (FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
    "euler-shift1.3": (FlowMatchEulerDiscreteScheduler, {"shift": 1.3}),
    "euler-karras": (FlowMatchEulerDiscreteScheduler, {"use_karras_sigmas": True, "shift": 3.0}),
    "euler-exponential": (FlowMatchEulerDiscreteScheduler, {"use_exponential_sigmas": True}),
    "euler-n250": (FlowMatchEulerDiscreteScheduler, {"num_train_timesteps": 250, "shift": 2}),
    "heun": (FlowMatchHeunDiscreteScheduler, {}),
    "heun-shift3": (FlowMatchHeunDiscreteScheduler, {"shift": 3.0}),
    "dpm-pixart": (DPMSolverMultistepScheduler, PIXART),
    "dpm-flow": (DPMSolverMultistepScheduler, {**FLOW_DPM}),
    "dpm-flow-shift3": (DPMSolverMultistepScheduler, {**FLOW_DPM, "flow_shift": 3.0}),
    "dpm-flow-loose-end": (
        DPMSolverMultistepScheduler,
        {**FLOW_DPM, "flow_shift": 1.7, "lower_order_final": False, "euler_at_final": True},
    ),
    "dpm-v": (DPMSolverMultistepScheduler, {**SD, **V}),
    "dpm-leading": (
        DPMSolverMultistepScheduler,
        {**SD, **LEADING, "steps_offset": 1},
    ),
    "dpm-trailing": (DPMSolverMultistepScheduler, {**SD, "timestep_spacing": "trailing"}),
    "dpm-karras": (DPMSolverMultistepScheduler, {**SD, "use_karras_sigmas": True}),
    "dpm-karras-v": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True, **V}),
    "dpm-exponential": (DPMSolverMultistepScheduler, {**SD, "use_exponential_sigmas": True}),
    "dpm-sigma-min": (DPMSolverMultistepScheduler, {"final_sigmas_type": "sigma_min"}),
    "dpm-sigma-min-second-order-end": (
        DPMSolverMultistepScheduler,
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    ),
    "dpm-sigma-min-karras": (
        DPMSolverMultistepScheduler,
        {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
    ),
    "dpm-cosine-clipped": (
        DPMSolverMultistepScheduler,
        {**COSINE, "lambda_min_clipped": -5.1},
    ),
    "dpm-cosine-karras-v": (
        DPMSolverMultistepScheduler,
        {**COSINE, "use_karras_sigmas": True, **V},
    ),
    "dpm-zero-snr": (DPMSolverMultistepScheduler, {**SD, **ZERO_SNR}),
    "ddim-clipped": (DDIMScheduler, {}),
    "ddim-sd": (
        DDIMScheduler,
        {**SD, **UNCLIPPED, "set_alpha_to_one": False, "steps_offset": 1},
    ),
    "ddim-v": (DDIMScheduler, {**SD, **UNCLIPPED, **V}),
    "ddim-v-clipped": (DDIMScheduler, {**SD, "clip_sample_range": 2.5, **V}),
    "ddim-trailing": (
        DDIMScheduler,
        {**SD, **UNCLIPPED, "timestep_spacing": "trailing", "set_alpha_to_one": False},
    ),
    "ddim-linspace": (DDIMScheduler, {**SD, **UNCLIPPED, "timestep_spacing": "linspace"}),
    "ddim-zero-snr": (DDIMScheduler, {**SD, **UNCLIPPED, **ZERO_SNR}),
    "ddim-cosine": (DDIMScheduler, {**COSINE, **UNCLIPPED, **V}),
    "unipc": (UniPCMultistepScheduler, {**FLOW_DPM}),
    "unipc-shift3": (UniPCMultistepScheduler, {**FLOW_DPM, "flow_shift": 3.0}),
    "unipc-shift5-n500": (
        UniPCMultistepScheduler,
        {**FLOW_DPM, "flow_shift": 5.0, "num_train_timesteps": 500},
    ),
    "cogvideox": (CogVideoXDDIMScheduler, {**V, "timestep_spacing": "linspace"}),
    "cogvideox-zero-snr": (CogVideoXDDIMScheduler, {**ZERO_SNR}),
    "cogvideox-unshifted": (
        CogVideoXDDIMScheduler,
        {**ZERO_SNR, "snr_shift_scale": 1.0, "set_alpha_to_one": False},
    ),
    "cogvideox-epsilon": (CogVideoXDDIMScheduler, {**LEADING, "snr_shift_scale": 2.0}),
}


def random_model(seed: int) -> Callable[[torch.Tensor, float], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(4, 4, generator=generator) / 2
    bias = torch.randn(4, 1, 1, generator=generator)

    def denoise(x: torch.Tensor, timestep: float) -> torch.Tensor:
        mixed = torch.einsum("ij,bjhw->bihw", mix, x)
        return torch.tanh(mixed + bias * math.cos(timestep / 137)) + 0.3 * torch.sin(x)

    return denoise


def config_of(scheduler: type, values: Mapping[str, object]) -> dict[str, object]:
    """What diffusers itself would save: every parameter, defaults included."""
    return {"_class_name": scheduler.__name__, **dict(scheduler(**values).config)}


def relative_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return float((ours - reference).abs().max() / max(1.0, float(reference.abs().max())))


def run_both(schedule: Schedule, reference: object, seed: int) -> float:
    """Largest relative error over the latents after every evaluation."""
    denoise = random_model(seed)
    x = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(seed + 1))
    theirs = x * getattr(reference, "init_noise_sigma", 1.0)
    x, memory = initial_scale(schedule) * x, ()
    worst = 0.0
    for evaluation, timestep in enumerate(reference.timesteps):
        theirs = reference.step(
            denoise(theirs, float(timestep)), timestep, theirs, return_dict=False
        )[0]
        prediction = denoise(x, schedule.timesteps[evaluation])
        x, memory = step(schedule, evaluation, x, prediction, memory)
        worst = max(worst, relative_error(x, theirs))
    return worst


def reference_with_steps(scheduler: type, values: Mapping[str, object], steps: int) -> object:
    reference = scheduler(**values)
    reference.set_timesteps(steps)
    if hasattr(reference, "set_begin_index"):
        # Otherwise diffusers starts at the second of two equal timesteps.
        reference.set_begin_index(0)
    return reference


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("case", CASES)
def test_latents_and_timesteps_after_every_evaluation(case: str, steps: int) -> None:
    scheduler, values = CASES[case]
    noise = NoiseModel.from_config(config_of(scheduler, values))
    schedule = build_schedule(noise, None, steps)
    reference = reference_with_steps(scheduler, values, steps)

    assert schedule.num_evaluations == len(reference.timesteps)
    assert list(schedule.timesteps) == reference.timesteps.tolist()
    assert run_both(schedule, reference, seed=steps) <= tolerance(schedule)


@pytest.mark.parametrize("case", ["euler-shift3", "euler-karras"])
def test_euler_has_the_bytes_of_diffusers(case: str) -> None:
    scheduler, values = CASES[case]
    schedule = build_schedule(NoiseModel.from_config(config_of(scheduler, values)), None, 28)
    assert run_both(schedule, reference_with_steps(scheduler, values, 28), seed=3) == 0.0


def test_heun_error_is_that_of_diffusers_rounding() -> None:
    """Where the two differ most, ours is the one that fp64 confirms."""
    scheduler, values = CASES["heun"]
    schedule = build_schedule(NoiseModel.from_config(config_of(scheduler, values)), None, 2)
    reference = reference_with_steps(scheduler, values, 2)
    denoise = random_model(1)
    theirs = ours = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(2))
    exact, memory, exact_memory = ours.double(), (), ()
    for evaluation, timestep in enumerate(reference.timesteps):
        prediction = denoise(ours, float(timestep))  # the same for all three
        theirs = reference.step(prediction, timestep, theirs).prev_sample
        ours, memory = step(schedule, evaluation, ours, prediction, memory)
        exact, exact_memory = step(schedule, evaluation, exact, prediction, exact_memory)
    assert relative_error(ours, exact) <= 3e-7
    assert relative_error(theirs, exact) >= 10 * relative_error(ours, exact)


@pytest.mark.parametrize("case", CASES)
def test_timesteps_of_every_step_count(case: str) -> None:
    """Rounded and truncated timesteps agree also where the value lies near a border."""
    scheduler, values = CASES[case]
    noise = NoiseModel.from_config(config_of(scheduler, values))
    for steps in (*range(1, 60, 3), 97, 125, 200, 240):
        schedule = build_schedule(noise, None, steps)
        reference = reference_with_steps(scheduler, values, steps)
        assert list(schedule.timesteps) == reference.timesteps.tolist(), steps


@pytest.mark.parametrize(
    ("case", "sampler", "scheduler", "extra"),
    [
        ("dpm-flow-shift3", "euler", FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
        ("dpm-flow-shift3", "heun", FlowMatchHeunDiscreteScheduler, {"shift": 3.0}),
        ("euler-shift3", "dpm++2m", DPMSolverMultistepScheduler, {**FLOW_DPM, "flow_shift": 3.0}),
        ("dpm-pixart", "ddim", DDIMScheduler, {**UNCLIPPED, "timestep_spacing": "linspace"}),
        ("ddim-v", "dpm++2m", DPMSolverMultistepScheduler, {**SD, **V, **LEADING}),
    ],
)
def test_a_sampler_other_than_the_published_one(
    case: str, sampler: str, scheduler: type, extra: dict[str, object]
) -> None:
    noise = NoiseModel.from_config(config_of(*CASES[case]))
    schedule = build_schedule(noise, sampler, 11)
    reference = reference_with_steps(scheduler, extra, 11)
    assert run_both(schedule, reference, seed=5) <= tolerance(schedule)


@pytest.mark.parametrize(
    ("sampler", "scheduler", "values", "spacing", "shift"),
    [
        ("euler", FlowMatchEulerDiscreteScheduler, {"shift": 2.5}, None, 2.5),
        ("euler", FlowMatchEulerDiscreteScheduler, {"use_karras_sigmas": True}, "karras", None),
        ("dpm++2m", DPMSolverMultistepScheduler, {**FLOW_DPM, "flow_shift": 0.6}, "uniform", 0.6),
    ],
)
def test_spacing_and_shift_given_by_the_user(
    sampler: str,
    scheduler: type,
    values: dict[str, object],
    spacing: str | None,
    shift: float | None,
) -> None:
    schedule = build_schedule(
        NoiseModel(prediction="flow"), sampler, 9, spacing=spacing, shift=shift
    )
    assert run_both(schedule, reference_with_steps(scheduler, values, 9), seed=6) <= TOLERANCE


@pytest.mark.parametrize("steps", STEPS[1:])
@pytest.mark.parametrize(
    "values",
    [
        {"shift_terminal": 0.1, "shift": 2.0},
        {"shift_terminal": 0.02, "use_karras_sigmas": True},
    ],
)
def test_a_path_that_is_stretched_to_its_last_level(values: dict[str, object], steps: int) -> None:
    noise = NoiseModel.from_config(config_of(FlowMatchEulerDiscreteScheduler, values))
    schedule = build_schedule(noise, None, steps)
    reference = reference_with_steps(FlowMatchEulerDiscreteScheduler, values, steps)
    assert list(schedule.timesteps) == reference.timesteps.tolist()
    assert schedule.sigmas[-2] == pytest.approx(values["shift_terminal"], abs=1e-6)
    assert run_both(schedule, reference, seed=steps) <= TOLERANCE


def test_a_single_step_is_all_the_way() -> None:
    noise = NoiseModel(prediction="flow", shift_terminal=0.1)
    assert build_schedule(noise, None, 1).sigmas == (1.0, 0.0)


@pytest.mark.parametrize("tokens", [6, 1024, 9000])
@pytest.mark.parametrize("values", [{}, {"shift_terminal": 0.02}])
def test_levels_that_a_pipeline_gives_by_the_size(values: dict[str, object], tokens: int) -> None:
    """As those of FLUX and Qwen-Image do, with numbers of the latter."""
    shifts = {"base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192}
    values = {**values, **shifts, "use_dynamic_shifting": True}
    noise = NoiseModel.from_config(config_of(FlowMatchEulerDiscreteScheduler, values))
    noise = replace(noise, timestep_spacing="even")
    schedule = build_schedule(noise, None, 9, shift=noise.shift_of(tokens))
    reference = FlowMatchEulerDiscreteScheduler(**values)
    mu = 0.5 + (tokens - 256) * (0.9 - 0.5) / (8192 - 256)
    reference.set_timesteps(sigmas=[1 - i / 9 for i in range(9)], mu=mu)
    assert schedule.timesteps == pytest.approx(reference.timesteps.tolist(), abs=1e-3)
    assert run_both(schedule, reference, seed=7) <= TOLERANCE


@pytest.mark.parametrize("case", ["ddim-clipped", "ddim-sd", "ddim-v-clipped", "ddim-trailing"])
def test_predicted_clean_is_that_of_diffusers(case: str) -> None:
    scheduler, values = CASES[case]
    schedule = build_schedule(NoiseModel.from_config(config_of(scheduler, values)), None, 7)
    reference = reference_with_steps(scheduler, values, 7)
    x = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(8))
    for evaluation, timestep in enumerate(reference.timesteps):
        prediction = random_model(9)(x, float(timestep))
        theirs = reference.step(prediction, timestep, x).pred_original_sample
        ours = predicted_clean(schedule, evaluation, x, prediction)
        assert relative_error(ours, theirs) <= TOLERANCE
