"""Pixels to files, and the files that a client may fetch by URL for a while."""

from __future__ import annotations

import io
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from musiva.core.clip import Clip
from musiva.core.provenance import exif, png_info
from musiva.server.answers import FileFormat

__all__ = ["FileStore", "StoredFile", "encode_picture"]


def encode_picture(
    pixels: np.ndarray,
    file_format: FileFormat,
    compression: int,
    parameters: Mapping[str, object] | None,
    fps: float = 1.0,
) -> bytes:
    """A file of `file_format`: "png", or "jpeg" or "webp" of quality `compression`, 0 to 100. Of
    [H, W, C], or of a clip [F, H, W, C], which is no JPEG.

    It carries `parameters`; without, it is a preview, and quickly made rather than small. Raises
    InvalidInput for parameters that a JPEG or WebP cannot carry.
    """
    if pixels.ndim == 4:
        assert file_format != "jpeg"
        clip = Clip.of(pixels, fps)
        return clip.content(file_format, compression=compression, parameters=parameters)
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if file_format == "png":
        if parameters is None:
            picture.save(buffer, "PNG", compress_level=1)
        else:
            picture.save(buffer, "PNG", pnginfo=png_info(parameters))
        return buffer.getvalue()
    known = b"" if parameters is None else exif(parameters)
    if file_format == "jpeg":
        # Halved colour resolution would be the largest loss of a file of high quality.
        subsampling = 0 if compression >= 90 else 2
        picture.save(buffer, "JPEG", quality=compression, subsampling=subsampling, exif=known)
    else:
        picture.save(buffer, "WEBP", quality=compression, exif=known)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class StoredFile:
    content: bytes
    media_type: str


class FileStore:
    """The latest pictures in memory, at most `max_bytes`; the oldest go first. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, content: bytes, file_format: str) -> str:
        """Keep a file; its name, which nobody can guess. A file larger than the store is kept
        alone.
        """
        name = f"{uuid.uuid4().hex}.{file_format}"
        with self._lock:
            self._files[name] = StoredFile(content, f"image/{file_format}")
            self._bytes += len(content)
            while self._bytes > self.max_bytes and len(self._files) > 1:
                _, oldest = self._files.popitem(last=False)
                self._bytes -= len(oldest.content)
        return name

    def get(self, name: str) -> StoredFile | None:
        with self._lock:
            return self._files.get(name)
