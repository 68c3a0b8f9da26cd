"""Reading `scheduler_config.json`."""

from __future__ import annotations

import json
import math

import pytest

from musiva.core.errors import BadCheckpoint
from musiva.samplers import NoiseModel, build_schedule

DPM = {"_class_name": "DPMSolverMultistepScheduler"}
DDIM = {"_class_name": "DDIMScheduler"}
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
UNIPC = {"_class_name": "UniPCMultistepScheduler"}
COGVIDEOX = {"_class_name": "CogVideoXDDIMScheduler"}
FLOW_DPM = {**DPM, "prediction_type": "flow_prediction", "use_flow_sigmas": True}


def test_what_the_classes_mean() -> None:
    cases = {
        "FlowMatchEulerDiscreteScheduler": ("flow", "euler"),
        "FlowMatchHeunDiscreteScheduler": ("flow", "heun"),
        "DPMSolverMultistepScheduler": ("epsilon", "dpm++2m"),
        "DDIMScheduler": ("epsilon", "ddim"),
        "CogVideoXDDIMScheduler": ("epsilon", "ddim"),
    }
    for name, (prediction, sampler) in cases.items():
        noise = NoiseModel.from_config({"_class_name": name, "_diffusers_version": "0.42.0"})
        assert (noise.prediction, noise.default_sampler()) == (prediction, sampler)
        assert build_schedule(noise, None, 4).sampler == sampler
    assert NoiseModel(prediction="flow").default_sampler() == "euler"
    assert NoiseModel(prediction="v_prediction").default_sampler() == "ddim"


def test_flow_through_dpm_solver() -> None:
    noise = NoiseModel.from_config({**FLOW_DPM, "flow_shift": 3, "lower_order_final": False})
    assert (noise.prediction, noise.shift, noise.lower_order_final) == ("flow", 3.0, False)
    assert noise.default_sampler() == "dpm++2m"


def test_flow_through_unipc() -> None:
    wan = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    noise = NoiseModel.from_config({**UNIPC, **wan, "disable_corrector": [], "solver_p": None})
    assert (noise.prediction, noise.shift, noise.default_sampler()) == ("flow", 3.0, "unipc")
    assert build_schedule(noise, None, 4).timesteps == (999.0, 900.0, 750.0, 500.0)


def test_json_as_diffusers_writes_it() -> None:
    text = (
        '{"_class_name": "DPMSolverMultistepScheduler",'
        ' "lambda_min_clipped": -Infinity, "trained_betas": null}'
    )
    noise = NoiseModel.from_config(json.loads(text))
    assert noise.lambda_min_clipped == -math.inf
    assert noise == NoiseModel(prediction="epsilon", scheduler="DPMSolverMultistepScheduler")


def test_defaults_differ_between_classes() -> None:
    assert NoiseModel.from_config(DDIM).clip == 1.0
    assert NoiseModel.from_config({**DDIM, "clip_sample": False}).clip is None
    assert NoiseModel.from_config(DPM).clip is None
    # Without a spacing of its own a model gets that of the sampler's scheduler.
    noise = NoiseModel.from_config(DPM)
    assert build_schedule(noise, None, 4).timesteps == (999.0, 749.0, 500.0, 250.0)
    assert build_schedule(noise, "ddim", 4).timesteps == (750.0, 500.0, 250.0, 0.0)


def test_a_key_of_another_scheduler_warns_and_has_no_effect() -> None:
    with pytest.warns(UserWarning, match="skip_prk_steps, use_karras_sigmas: no effect in DDIM"):
        noise = NoiseModel.from_config({**DDIM, "skip_prk_steps": True, "use_karras_sigmas": True})
    assert noise == NoiseModel.from_config(DDIM)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "_class_name: got None; supported: .*'DDIMScheduler'"),
        ({"_class_name": "PNDMScheduler"}, "_class_name: got 'PNDMScheduler'"),
        ({**DPM, "algorithm_type": "sde-dpmsolver++"}, "algorithm_type: .*'dpmsolver\\+\\+'"),
        ({**DPM, "solver_order": 3}, "solver_order: got 3; supported: 2"),
        ({**DPM, "solver_type": "heun"}, "solver_type: .*'midpoint'"),
        ({**DPM, "thresholding": True}, "thresholding: got True"),
        ({**DDIM, "thresholding": True}, "thresholding: got True"),
        ({**DPM, "use_beta_sigmas": True}, "use_beta_sigmas"),
        ({**DPM, "use_lu_lambdas": True}, "use_lu_lambdas"),
        ({**DPM, "variance_type": "learned_range"}, "variance_type: .*supported: null"),
        ({**DPM, "trained_betas": [0.1, 0.2]}, "trained_betas"),
        ({**DPM, "prediction_type": "sample"}, "prediction_type: got 'sample'"),
        ({**DPM, "prediction_type": "flow_prediction"}, "use_flow_sigmas: got None"),
        ({**DPM, "use_flow_sigmas": True}, "use_flow_sigmas: got True"),
        ({**FLOW_DPM, "use_karras_sigmas": True}, "use_karras_sigmas"),
        ({**FLOW_DPM, "final_sigmas_type": "sigma_min"}, "final_sigmas_type"),
        ({**FLOW_DPM, "flow_shift": 0}, "flow_shift: got 0; supported: a number from 0.01"),
        ({**DPM, "use_karras_sigmas": True, "use_exponential_sigmas": True}, "use_exponential"),
        (
            {**EULER, "use_dynamic_shifting": True, "time_shift_type": "linear"},
            "time_shift_type: got 'linear'",
        ),
        ({**EULER, "invert_sigmas": True}, "invert_sigmas"),
        ({**EULER, "stochastic_sampling": True}, "stochastic_sampling"),
        ({**EULER, "shift_terminal": 1.0}, "shift_terminal: got 1.0; supported: a number from 0"),
        ({**EULER, "shift": "3"}, "shift: got '3'"),
        ({**EULER, "shift": math.nan}, "shift: got nan"),
        ({**EULER, "num_train_timesteps": 0}, "num_train_timesteps: got 0"),
        ({**EULER, "num_train_timesteps": 1000.0}, "num_train_timesteps"),
        ({**DDIM, "beta_schedule": "sigmoid"}, "beta_schedule: got 'sigmoid'"),
        ({**DDIM, "beta_start": 0.02, "beta_end": 0.01}, "beta_end: got 0.01"),
        ({**DDIM, "timestep_spacing": "even"}, "timestep_spacing: got 'even'"),
        ({**DDIM, "clip_sample": "no"}, "clip_sample: got 'no'; supported: true or false"),
        ({**DDIM, "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr: got True"),
        ({**DDIM, "steps_offset": -1}, "steps_offset: got -1"),
        (UNIPC, "prediction_type: got None; supported: 'flow_prediction'"),
        ({**UNIPC, "prediction_type": "flow_prediction"}, "use_flow_sigmas: got None"),
        ({**UNIPC, "solver_order": 3}, "solver_order: got 3; supported: 2"),
        ({**UNIPC, "disable_corrector": [0]}, "disable_corrector: got \\[0\\]"),
        ({**UNIPC, "lower_order_final": False}, "lower_order_final: got False"),
        ({"_class_name": "CogVideoXDPMScheduler"}, "got 'CogVideoXDPMScheduler'; .*CogVideoXDDIM"),
        ({**COGVIDEOX, "snr_shift_scale": 0}, "snr_shift_scale: got 0"),
    ],
)
def test_unsupported_values_name_key_value_and_what_is_supported(
    config: dict[str, object], message: str
) -> None:
    with pytest.raises(BadCheckpoint, match=message):
        NoiseModel.from_config(config)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_zero_terminal_snr_keeps_the_start_and_empties_the_end(schedule: str) -> None:
    plain = NoiseModel(prediction="v_prediction", beta_schedule=schedule)  # type: ignore[arg-type]
    rescaled = NoiseModel(
        prediction="v_prediction",
        beta_schedule=schedule,  # type: ignore[arg-type]
        rescale_betas_zero_snr=True,
    )
    before, after = plain.alphas_cumprod(), rescaled.alphas_cumprod()
    assert after[0] == pytest.approx(before[0], abs=1e-6)
    assert after[-1] == 0.0 < before[-1]
    assert all(after[:-1] > after[1:])
