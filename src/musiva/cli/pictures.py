"""Pictures and clips as files: whole or not at all, and never in place of another one."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musiva.core.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from PIL import Image

    from musiva.core.clip import Clip

__all__ = [
    "Destination",
    "check_writable",
    "file_of",
    "grid_of",
    "png_of",
    "stem_of",
    "write_atomically",
]

FORMATS = (".png", ".webp")
OTHER_FORMATS = (".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".apng", ".mp4")
GAP = 4


class Destination:
    """Where pictures go: the one file, or a directory that is made when the first picture is there.

    Raises InvalidInput at once, before any work is done, if `out` cannot take `count` pictures.
    """

    def __init__(self, out: Path, *, count: int, force: bool) -> None:
        self.out = out
        self.is_file = out.suffix.lower() in FORMATS and not out.is_dir()
        self._force = force
        if out.suffix.lower() in OTHER_FORMATS and not out.is_dir():
            allowed = f"a file name that ends in {' or '.join(FORMATS)}, or a directory"
            raise InvalidInput("out", str(out), allowed)
        if self.is_file and count > 1:
            raise InvalidInput("out", str(out), f"a directory, for {count} pictures")
        if self.is_file and out.exists() and not force:
            raise InvalidInput(
                "out", str(out), "a file that does not exist yet, or --force to replace it"
            )
        check_writable("out", out.parent if self.is_file else out)

    @property
    def suffix(self) -> str | None:
        """That the user has said."""
        return self.out.suffix.lower() if self.is_file else None

    def write(self, content: bytes, stem: str, suffix: str) -> Path:
        """Save a file; returns its path. Raises Unavailable."""
        directory = self.out.parent if self.is_file else self.out
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with _temporary(directory) as temporary:
                temporary.write_bytes(content)
                path = self._reserve(stem, suffix)
                os.replace(temporary, path)
        except OSError as error:
            raise Unavailable(f"{directory}: a picture could not be written: {error}") from error
        return path

    def _reserve(self, stem: str, suffix: str) -> Path:
        if self.is_file and self._force:
            return self.out
        attempt = 1
        while True:
            name = f"{stem}{suffix}" if attempt == 1 else f"{stem}-{attempt}{suffix}"
            path = self.out if self.is_file else self.out / name
            try:
                # Made exclusively, so that no other process can take the name before the picture
                # gets it.
                path.open("xb").close()
                return path
            except FileExistsError:
                if self.is_file:
                    raise
            attempt += 1


@contextlib.contextmanager
def _temporary(directory: Path):
    handle, name = tempfile.mkstemp(dir=directory, prefix=".musiva-", suffix=".part")
    os.close(handle)
    try:
        # mkstemp makes files for their owner only; give what an ordinary new file gets.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, whole or not at all. Raises Unavailable."""
    raw = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path.parent) as temporary:
            temporary.write_bytes(raw)
            os.replace(temporary, path)
    except OSError as error:
        raise Unavailable(f"{path}: could not be written: {error}") from error


def check_writable(field: str, directory: Path) -> None:
    """Raise InvalidInput unless files can be made in `directory`, or it can be made; leaves nothing
    behind.
    """
    nearest = directory.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is no directory")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidInput(
            field, str(directory), f"a directory that can be written ({reason})"
        ) from error


def file_of(picture: Image.Image | Clip, note: Mapping[str, object], suffix: str) -> bytes:
    """A PNG or WebP file with `note` where `musiva.core.provenance` looks for it."""
    from musiva.core.clip import Clip
    from musiva.core.provenance import exif

    if isinstance(picture, Clip):
        return picture.content("png" if suffix == ".png" else "webp", parameters=note)
    if suffix == ".png":
        return png_of(picture, note)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=100, exif=exif(note))
    return buffer.getvalue()


def png_of(picture: Image.Image, note: Mapping[str, object]) -> bytes:
    """A PNG file with `note` where `musiva.core.provenance` looks for it."""
    from musiva.core.provenance import png_info

    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=png_info(note))
    return buffer.getvalue()


def stem_of(prompt: str, seed: int) -> str:
    """A file name that tells the prompt and the seed."""
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-_")
    return f"{words.encode()[:60].decode(errors='ignore').strip('-') or 'picture'}-{seed}"


def grid_of(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """All pictures, of one size, side by side on white; one row may be shorter than the others."""
    from PIL import Image

    width, height = rows[0][0].size
    columns = max(len(row) for row in rows)
    grid = Image.new(
        "RGB", (columns * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP), "white"
    )
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            grid.paste(picture, (x * (width + GAP), y * (height + GAP)))
    return grid
