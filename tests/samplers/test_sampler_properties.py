"""What must hold for every sampler, prediction and grid, whatever diffusers does."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musiva.core.errors import InvalidInput
from musiva.samplers import (
    SAMPLERS,
    Memory,
    NoiseModel,
    Prediction,
    Sampler,
    Schedule,
    build_schedule,
    flow_match_grid,
    guide,
    initial_scale,
    predicted_clean,
    predicted_noise,
    step,
)

PREDICTIONS: tuple[Prediction, ...] = ("flow", "epsilon", "v_prediction")
FITTING = [
    (name, kind) for name in SAMPLERS for kind in PREDICTIONS if kind in SAMPLERS[name].spacings
]


@st.composite
def schedules(draw: st.DrawFn, max_steps: int = 300) -> Schedule:
    name, prediction = draw(st.sampled_from(FITTING))
    noise = NoiseModel(
        prediction=prediction,
        beta_schedule=draw(st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"])),
        steps_offset=draw(st.integers(0, 1)),
        lower_order_final=draw(st.booleans()),
        euler_at_final=draw(st.booleans()),
    )
    shift = draw(st.floats(0.01, 100.0)) if prediction == "flow" else None
    spacing = draw(st.sampled_from(SAMPLERS[name].spacings[prediction]))
    steps = draw(st.integers(1, max_steps))
    return build_schedule(noise, name, steps, spacing=spacing, shift=shift)


def exact_prediction(schedule: Schedule, evaluation: int, x: torch.Tensor, clean: torch.Tensor):
    alpha, sigma = schedule.level(evaluation)
    noise = (x - alpha * clean) / sigma
    if schedule.prediction == "flow":
        return noise - clean
    return noise if schedule.prediction == "epsilon" else alpha * noise - sigma * clean


@settings(max_examples=120, deadline=None)
@given(schedule=schedules())
def test_grid_goes_down_from_noise_to_the_sample(schedule: Schedule) -> None:
    steps = schedule.num_steps
    assert len(schedule.sigmas) == len(schedule.alphas) == steps + 1
    assert schedule.num_evaluations == (2 * steps - 1 if schedule.sampler == "heun" else steps)
    assert all(a > b for a, b in zip(schedule.sigmas, schedule.sigmas[1:], strict=False))
    assert all(a < b for a, b in zip(schedule.alphas, schedule.alphas[1:], strict=False))
    assert all(a >= b for a, b in zip(schedule.timesteps, schedule.timesteps[1:], strict=False))
    assert schedule.timesteps[0] <= 1000.0
    assert schedule.timesteps[-1] >= 0.0
    for alpha, sigma in zip(schedule.alphas, schedule.sigmas, strict=True):
        size = alpha + sigma if schedule.prediction == "flow" else alpha**2 + sigma**2
        assert size == pytest.approx(1.0, abs=1e-6)
    assert hash(schedule) == hash(pickle.loads(pickle.dumps(schedule)))
    assert json.loads(json.dumps(dataclasses.asdict(schedule)))["timesteps"] == list(
        schedule.timesteps
    )


@settings(max_examples=60, deadline=None)
@given(schedule=schedules(max_steps=40), seed=st.integers(0, 99))
def test_with_the_exact_clean_sample_every_solver_lands_on_it(
    schedule: Schedule, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    x, memory = schedule.alphas[0] * clean + schedule.sigmas[0] * noise, ()
    for evaluation in range(schedule.num_evaluations):
        prediction = exact_prediction(schedule, evaluation, x, clean)
        seen = predicted_clean(schedule, evaluation, x, prediction)
        torch.testing.assert_close(seen, clean, atol=1e-7, rtol=0)
        alpha, sigma = schedule.level(evaluation)
        rebuilt = alpha * seen + sigma * predicted_noise(schedule, evaluation, x, prediction)
        torch.testing.assert_close(rebuilt, x, atol=1e-7, rtol=0)
        x, memory = step(schedule, evaluation, x, prediction, memory)
    alpha, sigma = schedule.landings[-1]
    if sigma == 0.0:
        torch.testing.assert_close(x, clean, atol=1e-7, rtol=0)
    else:  # DDIM's stride may end on the smallest training noise
        assert schedule.sampler == "ddim"
        assert sigma < 0.06


def wave(x: torch.Tensor, timestep: float) -> torch.Tensor:
    return torch.sin(3 * x + timestep / 200)


@pytest.mark.parametrize(("name", "prediction"), FITTING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_all_state_and_inputs_stay(
    name: str, prediction: Prediction, dtype: torch.dtype
) -> None:
    schedule = build_schedule(NoiseModel(prediction=prediction), name, 6)
    x: torch.Tensor = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    memory: Memory = ()
    states: list[bytes] = []
    for evaluation in range(schedule.num_evaluations):
        states.append(pickle.dumps((x, memory)))
        given_prediction = wave(x.float(), schedule.timesteps[evaluation]).to(dtype)
        before = [tensor.clone() for tensor in (x, given_prediction, *memory)]
        following, following_memory = step(schedule, evaluation, x, given_prediction, memory)
        for kept, tensor in zip(before, (x, given_prediction, *memory), strict=True):
            assert torch.equal(kept, tensor)
        assert following.dtype == torch.float32
        x, memory = following, following_memory
        x = x.to(dtype)

    for start, state in enumerate(states):
        again, again_memory = pickle.loads(state)
        for evaluation in range(start, schedule.num_evaluations):
            given_prediction = wave(again.float(), schedule.timesteps[evaluation]).to(dtype)
            again, again_memory = step(schedule, evaluation, again, given_prediction, again_memory)
            again = again.to(dtype)
        assert torch.equal(again, x)


@pytest.mark.parametrize(("name", "prediction"), FITTING)
def test_rows_do_not_depend_on_their_neighbours(name: str, prediction: Prediction) -> None:
    schedule = build_schedule(NoiseModel(prediction=prediction, clip=1.5), name, 4)
    together: torch.Tensor = torch.randn(37, 7, generator=torch.Generator().manual_seed(4))
    alone, together_memory, alone_memory = together[11:14].clone(), (), ()
    for evaluation in range(schedule.num_evaluations):
        predictions = [wave(x, schedule.timesteps[evaluation]) for x in (together, alone)]
        together, together_memory = step(
            schedule, evaluation, together, predictions[0], together_memory
        )
        # The model is not under test: its prediction for the same rows is handed over.
        predictions[1] = predictions[0][11:14].clone()
        alone, alone_memory = step(schedule, evaluation, alone, predictions[1], alone_memory)
    assert torch.equal(together[11:14], alone)


def even_schedule(name: str, prediction: Prediction, steps: int) -> Schedule:
    """An evenly divided stretch inside the path, so that only the solver decides the order."""
    noise = NoiseModel(prediction=prediction)
    parts = [0.9 - 0.8 * index / steps for index in range(steps + 1)]
    if prediction == "flow":
        levels = [(1 - part, part) for part in parts]
    else:
        levels = [(math.cos(part * math.pi / 2), math.sin(part * math.pi / 2)) for part in parts]
    return dataclasses.replace(
        build_schedule(noise, name, steps),
        alphas=tuple(alpha for alpha, _ in levels),
        sigmas=tuple(sigma for _, sigma in levels),
        landings=tuple(levels[1:]),
        euler_at_final=False,
    )


def error_on_gaussian_data(schedule: Schedule) -> float:
    """Data N(mean, width**2): the posterior mean, and with it the whole path, has a closed form.

    The probability flow keeps (x - alpha * mean) / sqrt(alpha**2 * width**2 + sigma**2) constant.
    """
    mean, width = 0.7, 0.4

    def spread(alpha: float, sigma: float) -> float:
        return math.sqrt(alpha**2 * width**2 + sigma**2)

    alpha, sigma = schedule.level(0)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x, memory = alpha * mean + spread(alpha, sigma) * start, ()
    for evaluation in range(schedule.num_evaluations):
        alpha, sigma = schedule.level(evaluation)
        pull = alpha * width**2 / spread(alpha, sigma) ** 2
        clean = mean + pull * (x - alpha * mean)
        prediction = exact_prediction(schedule, evaluation, x, clean)
        x, memory = step(schedule, evaluation, x, prediction, memory)
    alpha, sigma = schedule.landings[-1]
    return float((x - alpha * mean - spread(alpha, sigma) * start).abs().max())


@pytest.mark.parametrize(("name", "prediction"), FITTING)
def test_order_of_convergence(name: str, prediction: Prediction) -> None:
    order = {"euler": 1, "heun": 2, "dpm++2m": 2, "unipc": 3, "ddim": 1}[name]
    errors = [error_on_gaussian_data(even_schedule(name, prediction, n)) for n in (64, 128, 256)]
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("prediction", "sampler", "steps", "options", "field", "message"),
    [
        ("flow", "plms", 10, {}, "sampler", "euler, heun, dpm\\+\\+2m"),
        ("flow", "ddim", 10, {}, "sampler", "euler, heun, dpm\\+\\+2m, unipc .*'flow'"),
        ("epsilon", "euler", 10, {}, "sampler", "dpm\\+\\+2m, ddim .*'epsilon'"),
        ("v_prediction", "heun", 10, {}, "sampler", "dpm\\+\\+2m, ddim"),
        ("flow", "euler", 0, {}, "steps", "1 to 1000"),
        ("flow", "euler", 1001, {}, "steps", "1 to 1000"),
        ("flow", "euler", 10**9, {}, "steps", "1 to 1000"),
        ("flow", "euler", True, {}, "steps", "integer"),
        ("flow", "euler", 10.0, {}, "steps", "integer"),
        ("epsilon", "dpm++2m", 1000, {}, "steps", "0\\.\\.999"),
        (
            "flow",
            "euler",
            10,
            {"spacing": "linspace"},
            "spacing",
            "uniform, even, karras, exponential",
        ),
        ("epsilon", "ddim", 10, {"spacing": "karras"}, "spacing", "leading, trailing, linspace"),
        ("epsilon", "ddim", 10, {"shift": 3.0}, "shift", "flow"),
        ("flow", "euler", 10, {"shift": 0.0}, "shift", "0.01 to 100"),
        ("flow", "euler", 10, {"shift": math.nan}, "shift", "0.01 to 100"),
        ("flow", "euler", 10, {"shift": "3"}, "shift", "number"),
    ],
)
def test_bad_input_names_field_value_and_range(
    prediction: Prediction, sampler: str, steps: int, options: dict, field: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        build_schedule(NoiseModel(prediction=prediction), sampler, steps, **options)
    assert caught.value.field == field
    assert caught.value.value == {"sampler": sampler, "steps": steps, **options}[
        field
    ] or math.isnan(options["shift"])


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("name", ["ddim", "dpm++2m"])
def test_integer_grids_of_few_training_steps(name: str, spacing: str) -> None:
    """Every step count has distinct timesteps or is refused; none is quietly made shorter."""
    noise = NoiseModel(prediction="epsilon", num_train_timesteps=20)
    planned = []
    for steps in range(1, 40):
        try:
            schedule = build_schedule(noise, name, steps, spacing=spacing)
        except InvalidInput:
            continue
        assert len(set(schedule.timesteps)) == steps
        assert set(schedule.timesteps) <= set(range(20))
        planned.append(steps)
    assert planned == list(range(1, len(planned) + 1))
    assert len(planned) >= 19


def test_a_solver_of_ones_own() -> None:
    def backwards_euler(schedule, evaluation, x, prediction, memory):
        return x - (schedule.sigmas[evaluation + 1] - schedule.sigmas[evaluation]) * prediction, ()

    mine = Sampler(spacings={"flow": ("uniform",)}, grid=flow_match_grid, solve=backwards_euler)
    samplers = {**SAMPLERS, "mine": mine}
    schedule = build_schedule(NoiseModel(prediction="flow"), "mine", 1, samplers=samplers)
    x, _ = step(schedule, 0, torch.zeros(3), torch.ones(3), (), samplers=samplers)
    assert torch.equal(x, torch.ones(3))
    assert "mine" not in SAMPLERS


def test_initial_scale_is_unit_noise() -> None:
    for name, prediction in FITTING:
        schedule = build_schedule(NoiseModel(prediction=prediction), name, 10)
        assert initial_scale(schedule) == 1.0


def test_guidance() -> None:
    conditional, unconditional = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)
    assert torch.equal(guide(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guide(conditional, unconditional, 4.0), torch.tensor([-5.0, 11.0]))
    assert guide(conditional.bfloat16(), unconditional.bfloat16(), 4.0).dtype == torch.float32


def test_guidance_that_keeps_the_length_of_each_token() -> None:
    generator = torch.Generator().manual_seed(0)
    conditional, unconditional = torch.randn(2, 5, 8, generator=generator).unbind(0)
    guided = guide(conditional, unconditional, 4.0, "kept_norm")
    plain = guide(conditional, unconditional, 4.0)
    for mine, wanted, direction in zip(guided, conditional, plain, strict=True):
        assert float(mine.norm()) == pytest.approx(float(wanted.norm()), rel=1e-5)
        along = torch.nn.functional.cosine_similarity(mine, direction, dim=0)
        assert float(along) == pytest.approx(1.0, abs=1e-6)
    # A token of which nothing is left has no direction, and stays where it is.
    nothing = torch.zeros(1, 8)
    assert torch.equal(guide(nothing, nothing, 4.0, "kept_norm"), nothing)
