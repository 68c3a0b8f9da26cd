"""A picture carries what made it: a body for `POST /v1/images/generations`, as JSON.

PNG has it in the text chunk "musiva"; JPEG and WebP have it in the EXIF field UserComment. The JSON
is ASCII, other characters are escaped, so that readers need no more than that.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from typing import BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

import musiva
from musiva.core.containers import ASCII_CODE, EXIF_IFD, USER_COMMENT, read_text
from musiva.core.errors import InvalidInput

__all__ = ["exif", "png_info", "read_parameters"]

CHUNK = "musiva"
SOFTWARE = 0x0131
# A JPEG segment holds 65,533 bytes, "Exif\0\0" among them.
MAX_EXIF_BYTES = 65_527


def png_info(parameters: Mapping[str, object]) -> PngInfo:
    """For `picture.save(file, "PNG", pnginfo=...)`."""
    info = PngInfo()
    info.add_text(CHUNK, json.dumps(parameters))
    info.add_text("Software", f"musiva {musiva.__version__}")
    return info


def exif(parameters: Mapping[str, object]) -> bytes:
    """For `picture.save(file, "JPEG", exif=...)`, and "WEBP".

    Raises InvalidInput when they are too long for a JPEG, which only a long prompt can be.
    """
    fields = Image.Exif()
    fields[SOFTWARE] = f"musiva {musiva.__version__}"
    fields.get_ifd(EXIF_IFD)[USER_COMMENT] = ASCII_CODE + json.dumps(parameters).encode("ascii")
    content = fields.tobytes()
    if len(content) > MAX_EXIF_BYTES:
        allowed = f"parameters of {MAX_EXIF_BYTES} bytes in JPEG and WebP; PNG takes longer ones"
        raise InvalidInput("prompt", parameters.get("prompt"), allowed)
    return content


def read_parameters(source: str | os.PathLike[str] | bytes | BinaryIO) -> dict[str, object]:
    """What made a picture: a file by its path, its bytes, or open for reading. Thread-safe, if the
    file is the caller's alone; no pixel is decoded.

    Raises InvalidInput for "picture": no file, no picture, one without parameters, or with
    parameters that are not those of one picture.
    """
    name = source if isinstance(source, str | os.PathLike) else "the picture"
    shown = os.fspath(name)
    try:
        text = _text(source)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InvalidInput("picture", shown, "a file that exists") from error
    except PermissionError as error:
        raise InvalidInput("picture", shown, "a file that may be read") from error
    except (OSError, ValueError) as error:
        raise InvalidInput("picture", shown, "a whole PNG, JPEG or WebP file") from error
    if text is None:
        allowed = "a picture that Musiva made; this one carries no parameters"
        raise InvalidInput("picture", shown, f"{allowed}, or they were removed on its way")
    try:
        parameters = json.loads(text)
    except (ValueError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict) or not isinstance(parameters.get("prompt"), str):
        allowed = "a picture that Musiva made from one prompt; what this one carries is no body"
        raise InvalidInput("picture", shown, f"{allowed} for POST /v1/images/generations")
    return parameters


def _text(source: str | os.PathLike[str] | bytes | BinaryIO) -> str | None:
    if isinstance(source, bytes):
        return read_text(io.BytesIO(source), CHUNK)
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return _text(file)
    # A pipe has to be read to be searched.
    return read_text(source if source.seekable() else io.BytesIO(source.read()), CHUNK)
