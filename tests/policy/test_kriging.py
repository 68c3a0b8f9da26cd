"""Calibrated forecasts against processes of which the best forecast is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from musiva.core.errors import BadCheckpoint
from musiva.policy import Anchors, Bands, Calibration, Conditions, Kriging, Measured
from musiva.policy.kriging import RIDGE

CPU = torch.device("cpu")
PLACES = tuple(1 - i / 20 for i in range(20))
CONDITIONS = Conditions(steps=20, sampler="euler", guidance=1.0, size=(48, 32), prompts=8)


def calibration_of(latents: list[torch.Tensor], values: list[torch.Tensor]) -> Calibration:
    """Moments of one run, in one band."""
    fields = torch.stack([x.flatten() for x in (*latents, *values)]).double()
    moments = (fields @ fields.T / fields.shape[1]).float()[None]
    return Calibration(PLACES, (), moments, torch.zeros(1, 3, 3), (0.0,) * 4, CONDITIONS)


@pytest.mark.parametrize(
    ("grid", "patch"), [((1, 6, 4), (1, 1, 1)), ((1, 3, 5), (1, 2, 2)), ((4, 3, 2), (1, 2, 1))]
)
def test_bands_lose_nothing(grid: tuple[int, int, int], patch: tuple[int, int, int]) -> None:
    x_LC = torch.randn(math.prod(grid), 3 * math.prod(patch), generator=_seed(0))
    bands = Bands(grid, patch, (0.1, 0.4), CPU)
    (spectrum,) = bands.analyse(x_LC)
    assert torch.allclose(bands.synthesise(spectrum)[0], x_LC, atol=1e-5)
    assert spectrum.square().sum().item() == pytest.approx(x_LC.square().sum().item(), rel=1e-5)
    products = bands.products([spectrum, 2 * spectrum])
    assert products[:, 0, 0].sum().item() == pytest.approx(x_LC.square().sum().item(), rel=1e-5)
    assert torch.allclose(products[:, 0, 1], 2 * products[:, 0, 0])


def test_bands_part_smooth_from_fine() -> None:
    bands = Bands((1, 8, 8), (1, 1, 1), (0.01, 0.5), CPU)
    board = (torch.arange(64) // 8 + torch.arange(64)) % 2 * 2.0 - 1
    flat, checks = bands.analyse(torch.ones(64, 1), board[:, None])
    energy_of_flat, energy_of_checks = (bands.products([s])[:, 0, 0] for s in (flat, checks))
    assert energy_of_flat.tolist() == pytest.approx([64, 0, 0], abs=1e-4)
    assert energy_of_checks[2] > 0.9 * energy_of_checks.sum()
    weights = torch.tensor([[0.5, 1.0], [2.0, 0.0], [0.0, 3.0]])
    mixed = bands.combine([flat, checks], weights)
    assert mixed[0, 0, 0, 0].item() == pytest.approx(0.5 * flat[0, 0, 0, 0].item(), abs=1e-4)
    assert bands.products([mixed])[2, 0, 0].item() == pytest.approx(
        9 * energy_of_checks[2].item(), rel=1e-5
    )


def test_a_line_is_continued() -> None:
    """Values on a line between two pictures: Newton's weights are best, and are found."""
    noise, near, far = (torch.randn(24, 2, generator=_seed(i)) for i in range(3))
    values = [near + place * far for place in PLACES]
    latents = [
        place * noise + (1 - place) * value for place, value in zip(PLACES, values, strict=True)
    ]
    kriging = Kriging(calibration_of(latents, values), (1, 1, 1))
    anchors = (
        Anchors().add(values[4], PLACES[4], 2, latents[4]).add(values[8], PLACES[8], 2, latents[8])
    )
    for i in (10, 12, 15):
        guess = kriging.estimate(anchors, PLACES[i], (1, 6, 4))
        held, wanted = anchors.values[0] - values[i], guess - values[i]
        assert wanted.norm() < 0.25 * held.norm()
    between = 0.5 * (PLACES[10] + PLACES[11])
    guess = kriging.estimate(anchors, between, (1, 6, 4))
    assert (guess - (near + between * far)).norm() < 0.25 * (values[8] - values[10]).norm()


def test_one_value_is_enough() -> None:
    """Half of what is at the start decays to nothing: the latent tells how much noise is left."""
    value, noise = torch.randn(24, 2, generator=_seed(1)), torch.randn(24, 2, generator=_seed(2))
    values = [value * (2 - place) for place in PLACES]
    latents = [place * noise + (1 - place) * v for place, v in zip(PLACES, values, strict=True)]
    kriging = Kriging(calibration_of(latents, values), (1, 1, 1))
    anchors = Anchors().add(values[2], PLACES[2], 2, latents[2])
    guess = kriging.estimate(anchors, PLACES[12], (1, 6, 4))
    assert torch.allclose(guess, values[12], atol=10 * RIDGE * values[12].abs().max().item())


def test_the_correction_is_added_as_written() -> None:
    values = [torch.randn(24, 2, generator=_seed(i)) for i in range(20)]
    latents = [torch.randn(24, 2, generator=_seed(100 + i)) for i in range(20)]
    plain = calibration_of(latents, values)
    coefficients = torch.randn(1, 3, 3, generator=_seed(5))
    anchors = (
        Anchors().add(values[4], PLACES[4], 2, latents[4]).add(values[8], PLACES[8], 2, latents[8])
    )
    before, after = (
        Kriging(c, (1, 1, 1)).estimate(anchors, PLACES[11], (1, 6, 4))
        for c in (plain, replace(plain, correction=coefficients))
    )
    gone, here = PLACES[8] - PLACES[11], PLACES[8]
    shape = torch.tensor([gone, gone * here, gone * here**2])
    x, v, slope = coefficients[0] @ shape
    expected = x * latents[8] + v * values[8]
    expected = expected + slope * (values[8] - values[4]) / (PLACES[4] - PLACES[8])
    assert torch.allclose(after - before, expected, atol=1e-4)


def test_time_is_counted_in_evaluations() -> None:
    uneven = (1.0, 0.9, 0.5, 0.1)
    one = Calibration(
        uneven, (), torch.zeros(1, 8, 8), torch.zeros(1, 3, 3), (0.0,) * 4, CONDITIONS
    )
    assert [one.time(p) for p in (1.0, 0.9, 0.5, 0.1, 0.0)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert one.time(0.7) == pytest.approx(0.375)


def test_a_tolerance_is_the_cheapest_that_keeps_the_floor() -> None:
    rows = tuple(
        Measured(steps, tolerance, low + 4, low, 0.9, 0.3)
        for steps, rise in ((50, 0.0), (28, 1.0))
        for tolerance, low in ((0.05, 40.0 + rise), (0.1, 33.0 + rise), (0.2, 27.5 + rise))
    )
    one = Calibration(
        PLACES, (), torch.zeros(1, 40, 40), torch.zeros(1, 3, 3), (0.0,) * 4, CONDITIONS, table=rows
    )
    assert one.tolerance(32.0, 50) == 0.1
    assert one.tolerance(28.0, 50) == 0.1
    assert one.tolerance(28.0, 20) == 0.2
    assert one.tolerance(45.0, 28) is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    values = [torch.randn(24, 2, generator=_seed(i)) for i in range(20)]
    table = (Measured(28, 0.1, 36.0, 31.0, 0.98, 0.25),)
    one = replace(calibration_of(values, values), table=table)
    one.write(tmp_path)
    again = Calibration.read(tmp_path)
    assert again is not None
    assert torch.equal(again.moments, one.moments)
    assert (again.places, again.table, again.conditions) == (one.places, table, CONDITIONS)
    assert Calibration.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("damage", ["record", "places", "tensors", "shape"])
def test_a_broken_calibration_is_refused(tmp_path: Path, damage: str) -> None:
    values = [torch.randn(24, 2, generator=_seed(i)) for i in range(20)]
    folder = calibration_of(values, values).write(tmp_path)
    record = folder / "calibration.json"
    if damage == "record":
        record.write_text("{", encoding="utf-8")
    elif damage == "tensors":
        (folder / "forecast.safetensors").write_bytes(b"no tensors")
    else:
        known = json.loads(record.read_text())
        places = known["places"]
        known["places"] = places[:5] if damage == "shape" else places[::-1]
        record.write_text(json.dumps(known), encoding="utf-8")
    with pytest.raises(BadCheckpoint, match="calibration"):
        Calibration.read(tmp_path)


def _seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)
