"""Where the pictures of a run come together, whoever computes them."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from musiva.cli.parser import FLAGS
from musiva.cli.pictures import Destination, grid_of, png_of, stem_of
from musiva.cli.progress import Progress

if TYPE_CHECKING:
    from PIL import Image

    from musiva.core.clip import Clip

__all__ = ["Results"]

log = logging.getLogger(__name__)


class Results:
    """Every picture is written when it is there. A picture is known by the place of its prompt and
    its index there.

    As a context it shows progress, and at its end how much of the dense run was computed, where it
    was not all; asked: what chose that, such as "at quality 80". A prompt that fails does not take
    the others with it: leaving the context raises the first failure; later ones of another kind are
    logged.
    """

    def __init__(
        self, prompts: Sequence[str], per_prompt: int, destination: Destination, asked: str = ""
    ) -> None:
        self._prompts, self._per_prompt, self._asked = prompts, per_prompt, asked
        self._destination = destination
        self._evaluations: dict[tuple[int, int], int] = {}
        self._pictures: dict[tuple[int, int], Image.Image | Clip] = {}
        self._seeds: dict[tuple[int, int], int] = {}
        self._shares: list[float] = []
        self._failures: list[Exception] = []
        self._warned: set[str] = set()

    def __enter__(self) -> Results:
        self.progress = Progress(sys.stderr, _pictures(len(self._prompts) * self._per_prompt))
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.progress.__exit__(kind, *rest)
        if any(share < 1.0 for share in self._shares):
            share = sum(self._shares) / len(self._shares)
            told = " ".join(filter(None, [_pictures(len(self._shares)), self._asked]))
            print(f"{told}: {100 * share:.0f} % of the dense run computed", file=sys.stderr)
        if kind is None and self._failures:
            raise self._failures[0]

    def advance(self, place: int, index: int, evaluation: int, num_evaluations: int) -> None:
        """So many evaluations of a picture are done, which may be several more than last time."""
        before = self._evaluations.get((place, index), 0)
        self._evaluations[place, index] = max(before, evaluation)
        total = num_evaluations * len(self._prompts) * self._per_prompt
        for _ in range(before, evaluation):
            self.progress.advance(total)

    def add(
        self,
        place: int,
        index: int,
        seed: int,
        picture: Image.Image | Clip,
        content: bytes,
        suffix: str,
        share: float | None,
    ) -> None:
        """content: its file, suffix: of that file's name. share: of the dense run, that was
        computed; None where a server does not tell. Raises Unavailable when it cannot be written.
        """
        if share is not None:
            self._shares.append(share)
        self._pictures[place, index] = picture
        self._seeds[place, index] = seed
        stem = stem_of(self._prompts[place], seed)
        print(self._destination.write(content, stem, suffix), flush=True)

    def warn(self, warnings: Iterable[str]) -> None:
        """What had no effect, as "FIELD: why"; the same is told once."""
        for text in warnings:
            field, colon, why = text.partition(": ")
            if text not in self._warned:
                log.warning("%s%s%s", FLAGS.get(field, field), colon, why)
            self._warned.add(text)

    def fail(self, place: int, error: Exception) -> None:
        told = {str(failure) for failure in self._failures}
        if told and str(error) not in told:
            log.error("prompt %r: %s", self._prompts[place], error)
        self._failures.append(error)

    def write_grid(self) -> None:
        """All pictures side by side, of clips the first frame: a row per prompt; of a single
        prompt, or single pictures, in a shape near a square. Only when none failed.
        """
        pictures = [_still(self._pictures[key]) for key in sorted(self._pictures)]
        columns = self._per_prompt
        if not 1 < columns < len(pictures):
            columns = math.ceil(math.sqrt(len(pictures)))
        rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
        seed = self._seeds[0, 0]
        note = {"grid": list(self._prompts), "seed": seed}
        stem = f"{stem_of(self._prompts[0], seed)}-grid"
        print(self._destination.write(png_of(grid_of(rows), note), stem, ".png"))


def _still(picture: Image.Image | Clip) -> Image.Image:
    from musiva.core.clip import Clip

    return picture.frames[0] if isinstance(picture, Clip) else picture


def _pictures(count: int) -> str:
    return f"{count} picture{'s' if count > 1 else ''}"
