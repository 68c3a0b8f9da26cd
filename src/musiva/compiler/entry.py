"""A capture on disk: a folder that is written whole, and used only if it is as it was written.

Beside the artifact lie the prologues of sizes at which the class had to be looked at again, and a
note that the program was held against the class.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from musiva.compiler.arguments import Sizes
from musiva.compiler.artifact import Artifact, files_of, from_files, prologue_files, prologue_of
from musiva.compiler.digest import digest
from musiva.compiler.folder import MANIFEST, Unusable, stored, written_to
from musiva.compiler.prologue import Prologue

__all__ = ["Entry"]

log = logging.getLogger(__name__)
FACTS, VERIFIED, SIZES = "facts.json", "verified", "sizes"
# Of sizes, the last ones are kept.
MOST_SIZES = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """What cannot be written is logged, and does without."""

    folder: Path

    def read(self) -> Artifact:
        """Raises Unusable, saying what is wrong with it, or FileNotFoundError."""
        return from_files(stored(self.folder))

    def write(self, artifact: Artifact, facts: Mapping[str, str]) -> bool:
        """Instead of what is there. facts: what it depends on. Whether it could be."""
        told = json.dumps(dict(facts), indent=1).encode()
        return self._keep(self.folder, lambda: {**files_of(artifact), FACTS: told})

    def facts(self) -> Mapping[str, str]:
        """What its artifact depends on; nothing where that cannot be read."""
        try:
            found = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def is_verified(self) -> bool:
        """Whether this very program was held against its class."""
        try:
            return (self.folder / VERIFIED).read_text(encoding="utf-8") == self._mark()
        except (OSError, ValueError):
            return False

    def note_verified(self) -> None:
        try:
            (self.folder / VERIFIED).write_text(self._mark(), encoding="utf-8")
        except OSError as error:
            log.info("%s: that it is right could not be noted (%s)", self.folder, error)

    def prologue(self, sizes: Sizes, given: Mapping[str, object]) -> Prologue | None:
        """Of these sizes, at which the arguments that follow from them are these; None where none
        is kept.
        """
        folder = self._at(sizes, given)
        try:
            return prologue_of(stored(folder))
        except FileNotFoundError:
            return None
        except Unusable as error:
            log.warning("%s: %s: the class is looked at again", folder, error)
            return None

    def keep(self, sizes: Sizes, given: Mapping[str, object], prologue: Prologue) -> None:
        """The prologue of these sizes."""
        folder = self._at(sizes, given)
        if self._keep(folder, lambda: prologue_files(prologue)):
            _forget_oldest(folder.parent)

    def _keep(self, folder: Path, made: Callable[[], Mapping[str, bytes]]) -> bool:
        try:
            written_to(folder, made())
        except (OSError, TypeError, ValueError, KeyError) as error:
            log.warning("%s could not be kept (%s): it is made anew at every start", folder, error)
            return False
        return True

    def _mark(self) -> str:
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    def _at(self, sizes: Sizes, given: Mapping[str, object]) -> Path:
        shown = ",".join(f"{name}={size}" for name, size in sorted(sizes.items()))
        return self.folder / SIZES / f"{shown}-{digest(given)[:16]}"


def _forget_oldest(folder: Path) -> None:
    with suppress(OSError):
        every = sorted(
            (one for one in folder.iterdir() if not one.name.startswith(".")),
            key=lambda one: one.stat().st_mtime,
        )
        for one in every[:-MOST_SIZES]:
            shutil.rmtree(one, ignore_errors=True)
