"""A picture that the device has no room for is refused before it is begun."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from musiva.core.errors import InvalidInput
from musiva.engine import Engine, Pipeline, footprint, load_pipeline
from musiva.engine.footprint import Footprint, device_bytes


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return load_pipeline(tiny_model, device="cpu")


def test_larger_pictures_and_more_branches_need_more(pipeline: Pipeline) -> None:
    found = Footprint(pipeline)
    needs = [found.needs(size, 2) for size in ((16, 16), (32, 32), (64, 32), (128, 128))]
    assert needs == sorted(set(needs))
    assert found.needs((64, 64), 2) >= found.needs((64, 64), 1) > 0


def test_what_the_widest_layer_reads_and_writes_is_counted(pipeline: Pipeline) -> None:
    vae, size = pipeline.vae, (64, 48)
    x, numbers = torch.zeros(pipeline.latent_shape(size)), []
    with torch.no_grad():
        for part in pipeline.decode_parts():
            y = part(x)
            numbers.append(x.numel() + y.numel())
            x = y
    told = vae.widest_at_pixels * size[0] * size[1]
    assert 0.5 * max(numbers) <= told <= 2.0 * max(numbers)


def test_what_does_not_fit_is_refused_by_name(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Room for one size and not for the next one.
    least = Footprint(pipeline)
    assert least.free is not None
    total = device_bytes(pipeline.device)
    assert total is not None
    kept = total - least.free
    room = least.needs((64, 64), 2)
    monkeypatch.setattr(footprint, "device_bytes", lambda _: kept + room)
    with Engine(pipeline) as engine:
        assert engine.request("a fox", size=(64, 64), guidance=3.0).size == (64, 64)
        with pytest.raises(InvalidInput, match="MiB that cpu has") as caught:
            engine.request("a fox", size=(96, 96), guidance=3.0)
    assert (caught.value.field, caught.value.value) == ("size", "96x96")


def test_where_nobody_says_nothing_is_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "device_bytes", lambda _: None)
    found, vast = Footprint(pipeline), (1 << 20, 1 << 20)
    assert found.free is None
    assert found.needs(vast, 2) > 1 << 40
    found.check(vast, 2)  # raises where there is a limit


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(footprint, "LIMITS", (str(first), str(second)))
    assert device_bytes(torch.device("cpu")) == physical
    first.write_text("max\n")
    second.write_text("1048576\n")
    assert device_bytes(torch.device("cpu")) == 1 << 20
