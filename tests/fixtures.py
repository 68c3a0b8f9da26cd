"""Fixtures that several packages' tests share; conftest.py imports them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from musiva.engine import Engine
from tests.tiny import tiny_pixart_directory

__all__ = ["hears_interrupts", "tiny_engine", "tiny_model"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete random model in a diffusers directory named "tiny"; tests only read it."""
    return tiny_pixart_directory(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny_engine(tiny_model: Path) -> Iterator[Engine]:
    """An engine of its own for one test, closed afterwards."""
    with Engine.load(tiny_model, device="cpu") as engine:
        yield engine


def hears_interrupts() -> None:
    """For `preexec_fn`: what a shell runs in its background is born deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
