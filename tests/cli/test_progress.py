"""The progress bar, with a clock of its own."""

from __future__ import annotations

import io

from musiva.cli.progress import QUIET_SECONDS, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_redrawn() -> None:
    clock, stream = Clock(), Terminal()
    with Progress(stream, "work", clock) as progress:
        for _ in range(4):
            clock.now += 1
            progress.advance(4)
    lines = stream.getvalue().split("\r")
    assert len(lines) == 6
    assert lines[1].startswith("work [######..................] 1/4 steps, 1 s, 3 s left")
    assert lines[-1].startswith("work [########################] 4/4 steps, 4 s, 0 s left")
    assert stream.getvalue().endswith("\n")


def test_a_terminal_is_not_redrawn_more_often_than_eyes_see() -> None:
    clock, stream = Clock(), Terminal()
    with Progress(stream, "work", clock) as progress:
        for _ in range(1000):
            clock.now += 0.001
            progress.advance(1000)
    assert stream.getvalue().count("\r") < 13


def test_elsewhere_there_is_a_quiet_line_now_and_then() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, "work", clock) as progress:
        for _ in range(5):
            clock.now += QUIET_SECONDS / 2
            progress.advance(5)
    assert stream.getvalue() == (
        "work: 2/5 steps, 10 s, 15 s left\nwork: 4/5 steps, 20 s, 5 s left\n"
    )
