"""Forecasts are exact where theory says so, and weights are those of the solver."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musiva.policy import Anchors
from musiva.samplers import (
    SAMPLERS,
    NoiseModel,
    build_schedule,
    clean_weights,
    initial_scale,
    predicted_clean,
    prediction_from_clean,
    step,
)

FITTING = [(name, kind) for name, one in SAMPLERS.items() for kind in one.spacings]


@given(st.integers(0, 2), st.integers(0, 2), st.data())
def test_polynomials_are_forecast_exactly_over_uneven_gaps(degree: int, order: int, data) -> None:
    gaps = data.draw(st.lists(st.floats(0.01, 0.2), min_size=4, max_size=4))
    coefficients = data.draw(st.lists(st.integers(-8, 8), min_size=degree + 1, max_size=degree + 1))
    places = [1 - sum(gaps[:i]) for i in range(5)]

    def value(place: float) -> torch.Tensor:
        total = sum(c * place**k for k, c in enumerate(coefficients))
        return torch.full((2, 3), total, dtype=torch.float64)

    anchors = Anchors()
    for place in places[:4]:
        anchors = anchors.add(value(place), place, keep=3)
    assert len(anchors.values) == 3
    said = anchors.forecast(places[4], order)
    if order >= degree:
        assert torch.allclose(said, value(places[4]), atol=1e-9)
    if order == 0:
        assert torch.equal(said, value(places[3]))


def test_a_forecast_takes_the_order_that_it_has_values_for() -> None:
    one = Anchors().add(torch.ones(1, 1), 0.9, keep=2)
    assert one.forecast(0.5, 1).item() == 1.0
    two = one.add(torch.full((1, 1), 2.0), 0.8, keep=2)
    assert two.forecast(0.7, 2).item() == pytest.approx(3.0)


def test_a_second_value_at_a_place_takes_the_first_ones() -> None:
    anchors = Anchors()
    for value, place in ((1.0, 0.9), (2.0, 0.8), (3.0, 0.8), (4.0, 0.7)):
        anchors = anchors.add(torch.full((1, 1), value), place, keep=3)
    assert anchors.places == (0.7, 0.8, 0.9)
    assert [value.item() for value in anchors.values] == [4.0, 3.0, 1.0]
    assert anchors.forecast(0.6, 1).item() == pytest.approx(5.0)


@pytest.mark.parametrize(("sampler", "kind"), FITTING)
def test_the_final_latent_is_the_weighted_sum_of_the_data_predictions(sampler, kind) -> None:
    noise = NoiseModel(prediction=kind, shift=1.5)
    schedule = build_schedule(noise, sampler, 9)
    generator = torch.Generator().manual_seed(0)
    cleans = torch.randn(schedule.num_evaluations, 5, generator=generator, dtype=torch.float64)
    finals = []
    for scale in (0.0, 1.0):
        x = torch.ones(5, dtype=torch.float64) * initial_scale(schedule)
        memory = ()
        for evaluation, clean in enumerate(cleans * scale):
            prediction = prediction_from_clean(schedule, evaluation, x, clean)
            assert torch.allclose(predicted_clean(schedule, evaluation, x, prediction), clean)
            x, memory = step(schedule, evaluation, x, prediction, memory)
        finals.append(x)
    weights = torch.tensor(clean_weights(schedule), dtype=torch.float64)
    assert torch.allclose(finals[1] - finals[0], weights @ cleans, atol=1e-9)
    if kind == "flow":
        # A flow path that ends at sigma 0 is all data prediction.
        assert weights.sum().item() == pytest.approx(1.0)


def test_places_fall_from_noise_to_picture() -> None:
    schedule = build_schedule(NoiseModel(prediction="flow", shift=3.0), "euler", 12)
    places = [schedule.place(evaluation) for evaluation in range(12)]
    assert places[0] == 1.0
    assert places == sorted(places, reverse=True)
    assert 0 < places[-1] < 0.3
