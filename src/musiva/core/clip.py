"""Clips: frames and their rate, and the files in which they move.

Pillow writes WebP, PNG and GIF that move, and browsers show them wherever they show a picture. A
file of video (MP4) would need an encoder of video, which nothing that Musiva installs brings along;
who wants one makes it of the frames.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from PIL import Image, ImageSequence

from musiva.core.errors import InvalidInput, Unavailable
from musiva.core.provenance import exif, png_info

if TYPE_CHECKING:
    import numpy as np

__all__ = ["COMPRESSION", "Clip", "ClipFormat", "shown"]

ClipFormat: TypeAlias = Literal["webp", "png", "gif"]
SUFFIXES: Mapping[str, ClipFormat] = {
    ".webp": "webp",
    ".png": "png",
    ".apng": "png",
    ".gif": "gif",
}
# Of WebP, 0 to 100: frames that differ little from the dense run need no more.
COMPRESSION = 90


@dataclass(frozen=True, slots=True)
class Clip:
    """frames: pictures of one size, at least one. fps: of them a second."""

    frames: tuple[Image.Image, ...]
    fps: float

    @classmethod
    def of(cls, pixels_FHWC: np.ndarray, fps: float) -> Clip:
        """From uint8."""
        return cls(tuple(map(Image.fromarray, pixels_FHWC)), fps)

    @classmethod
    def read(cls, content: bytes) -> Clip:
        """From a file that moves, or stands still; of frames that are alike, some formats keep the
        first alone, for longer. Raises Unavailable for what is none.
        """
        frames, milliseconds = [], 0.0
        try:
            with Image.open(io.BytesIO(content)) as file:
                for frame in ImageSequence.Iterator(file):
                    frames.append(frame.convert("RGB"))
                    milliseconds += frame.info.get("duration", 0)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Unavailable(f"a clip that cannot be decoded: {error}") from error
        return cls(tuple(frames), 1000 * len(frames) / milliseconds if milliseconds else 1.0)

    def content(
        self,
        file_format: ClipFormat = "webp",
        *,
        compression: int = COMPRESSION,
        parameters: Mapping[str, object] | None = None,
    ) -> bytes:
        """A file that shows it again and again: "webp" of quality `compression`, 0 to 100, "png",
        which loses nothing, or "gif" of 256 colours. parameters: what made it, as pictures carry it
        (`musiva.core.provenance`); a GIF has no place for them.

        Raises InvalidInput for parameters that a WebP cannot carry.
        """
        buffer = io.BytesIO()
        first, *others = self.frames
        unit = 10 if file_format == "gif" else 1
        moving = {
            "save_all": True,
            "append_images": others,
            "duration": self._durations(unit),
            "loop": 0,
        }
        if file_format == "png":
            info = None if parameters is None else png_info(parameters)
            first.save(buffer, "PNG", pnginfo=info, **moving)
        elif file_format == "webp":
            known = b"" if parameters is None else exif(parameters)
            first.save(buffer, "WEBP", quality=compression, exif=known, **moving)
        else:
            first.save(buffer, "GIF", **moving)
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as the name's end says. Raises InvalidInput for another one."""
        path = Path(path)
        file_format = SUFFIXES.get(path.suffix.lower())
        if file_format is None:
            raise InvalidInput("path", str(path), f"a name that ends in {', '.join(SUFFIXES)}")
        path.write_bytes(self.content(file_format))
        return path

    def _durations(self, unit: int) -> list[int]:
        """Milliseconds of each frame, multiples of `unit`, that add up to what they should."""
        ends = [round(1000 * (i + 1) / self.fps / unit) * unit for i in range(len(self.frames))]
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def shown(pixels: np.ndarray, fps: float) -> Image.Image | Clip:
    """uint8 [H, W, 3] as a picture, [F, H, W, 3] as a clip."""
    return Image.fromarray(pixels) if pixels.ndim == 3 else Clip.of(pixels, fps)
