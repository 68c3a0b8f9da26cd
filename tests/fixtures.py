"""Fixtures that several packages' tests share; conftest.py imports them."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from musiva.engine import Engine, load_pipeline
from musiva.perf import calibration
from musiva.perf.calibration import fit, table
from tests.tiny import tiny_pixart_directory

__all__ = ["calibrated_model", "hears_interrupts", "tiny_engine", "tiny_model"]

CALIBRATION_PROMPTS = tuple(
    f"a {colour} {thing}" for colour in ("red", "blue") for thing in ("fox", "cat", "tree", "bus")
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete random model in a diffusers directory named "tiny"; tests only read it."""
    return tiny_pixart_directory(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def calibrated_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a calibration, from fewer runs than users' have."""
    model = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_model, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "RUNS_PER_ROUND", 6)
        patch.setattr(table, "TOLERANCES", (0.05, 0.1, 0.2, 0.33))
        plan = calibration.Plan(CALIBRATION_PROMPTS, steps=(20,), size=(48, 32))
        calibration.calibrate(load_pipeline(model, device="cpu"), plan).write(model)
    return model


@pytest.fixture
def tiny_engine(tiny_model: Path) -> Iterator[Engine]:
    """An engine of its own for one test, closed afterwards."""
    with Engine.load(tiny_model, device="cpu") as engine:
        yield engine


def hears_interrupts() -> None:
    """For `preexec_fn`: what a shell runs in its background is born deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
