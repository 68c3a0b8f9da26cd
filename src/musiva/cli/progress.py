"""Progress on stderr: a bar on a terminal, elsewhere a quiet line now and then."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

__all__ = ["Progress"]

REDRAW_SECONDS = 0.1
QUIET_SECONDS = 10.0
BAR = 24


class Progress:
    """Counts up to a total that may become known late. Use as a context, so that the terminal line
    ends.
    """

    def __init__(
        self, stream: TextIO, label: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._label, self._clock = stream, label, clock
        self._terminal = stream.isatty()
        self._start = self._shown = clock()
        self.done = self.total = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._terminal and self.total:
            self._show()
            self._stream.write("\n")
            self._stream.flush()

    def advance(self, total: int) -> None:
        """One more of `total` is done."""
        self.done, self.total = self.done + 1, total
        now = self._clock()
        if now - self._shown >= (REDRAW_SECONDS if self._terminal else QUIET_SECONDS):
            self._shown = now
            self._show()

    def _show(self) -> None:
        seconds = self._clock() - self._start
        left = seconds * (self.total - self.done) / max(self.done, 1)
        counts = f"{self.done}/{self.total} steps, {seconds:.0f} s, {left:.0f} s left"
        if not self._terminal:
            self._stream.write(f"{self._label}: {counts}\n")
        else:
            filled = BAR * self.done // max(self.total, 1)
            line = f"{self._label} [{'#' * filled}{'.' * (BAR - filled)}] {counts}"
            self._stream.write("\r" + line[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
        self._stream.flush()
