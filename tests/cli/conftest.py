"""The command line called in this process, with its output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from musiva.cli import main


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Musiva = Callable[..., Result]


@pytest.fixture
def musiva(capsys: pytest.CaptureFixture[str]) -> Iterator[Musiva]:
    """musiva("generate", "a fox", ...) -> its exit code and what it printed."""

    def run(*arguments: object) -> Result:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's way out of --help, --version and its own errors
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    yield run
    logging.captureWarnings(False)
