"""Where PNG, JPEG and WebP files keep a text. Nothing is decoded but the text, so that a picture of
any size, whole or damaged, costs no more than reading its segments.

PNG: Portable Network Graphics, third edition, sections 5.3 and 11.3.3. JPEG: ITU-T T.81, annex B.
WebP: RFC 9649, section 2. EXIF: Exif 2.32, section 4.6; TIFF 6.0, section 2.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO

__all__ = ["ASCII_CODE", "EXIF_IFD", "USER_COMMENT", "read_text"]

EXIF_IFD = 0x8769
USER_COMMENT = 0x9286
# A comment begins with eight bytes that name its character code.
ASCII_CODE = b"ASCII\0\0\0"
EXIF = b"Exif\0\0"
PNG = b"\x89PNG\r\n\x1a\n"
START_OF_IMAGE, APP1 = b"\xff\xd8", 0xE1
# The pixels begin, and without them the file ends.
NO_MORE_SEGMENTS = (0xDA, 0xD9)
# Longer segments are passed over, and texts do not unpack to more.
MAX_TEXT = 16 << 20


def read_text(file: BinaryIO, keyword: str) -> str | None:
    """Of a PNG the text with this keyword, wherever it stands; of a JPEG and a WebP the EXIF
    UserComment, if it is ASCII. None without one.

    Raises ValueError for what is no such file, or is cut short or damaged where it was read.
    """
    file.seek(0)
    head = file.read(12)
    if head.startswith(PNG):
        return _png_text(file, keyword.encode("latin-1"))
    if head.startswith(START_OF_IMAGE):
        return _user_comment(_jpeg_exif(file))
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return _user_comment(_webp_exif(file, 8 + int.from_bytes(head[4:8], "little")))
    raise ValueError("neither PNG nor JPEG nor WebP")


def _png_text(file: BinaryIO, keyword: bytes) -> str | None:
    file.seek(len(PNG))
    while True:
        length, kind = struct.unpack(">I4s", _exactly(file, 8))
        if kind == b"IEND":
            return None
        if kind not in (b"tEXt", b"zTXt", b"iTXt") or length > MAX_TEXT:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        data, checksum = _exactly(file, length), _exactly(file, 4)
        name, _, value = data.partition(b"\0")
        if name == keyword:
            if zlib.crc32(kind + data) != int.from_bytes(checksum, "big"):
                raise ValueError("the checksum is wrong")
            return _unpacked(kind, value)


def _unpacked(kind: bytes, value: bytes) -> str:
    """The text of a chunk behind its keyword."""
    if kind == b"tEXt":
        return value.decode("latin-1")
    if kind == b"zTXt":
        return _inflated(value[1:]).decode("latin-1")
    _language, _translated, text = value[2:].split(b"\0", 2)
    return (_inflated(text) if value[0] else text).decode("utf-8")


def _inflated(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_TEXT)
    except zlib.error as error:
        raise ValueError("a text that does not unpack") from error
    if not unpacker.eof:
        raise ValueError(f"a text that is cut short, or of more than {MAX_TEXT} bytes")
    return text


def _jpeg_exif(file: BinaryIO) -> bytes | None:
    file.seek(len(START_OF_IMAGE))
    while True:
        prefix, marker = _exactly(file, 2)
        if prefix != 0xFF:
            raise ValueError("no marker where one has to be")
        while marker == 0xFF:  # any number of them may fill up
            (marker,) = _exactly(file, 1)
        if marker in NO_MORE_SEGMENTS:
            return None
        length = int.from_bytes(_exactly(file, 2), "big") - 2
        if marker != APP1 or length < 0:
            file.seek(max(length, 0), os.SEEK_CUR)
            continue
        data = _exactly(file, length)
        if data.startswith(EXIF):
            return data.removeprefix(EXIF)


def _webp_exif(file: BinaryIO, end: int) -> bytes | None:
    file.seek(12)
    while file.tell() < end:
        kind, length = struct.unpack("<4sI", _exactly(file, 8))
        if kind == b"EXIF" and length <= MAX_TEXT:
            # Some programs write what comes before it in a JPEG.
            return _exactly(file, length).removeprefix(EXIF)
        file.seek(length + length % 2, os.SEEK_CUR)
    return None


def _user_comment(tiff: bytes | None) -> str | None:
    """None too for fields that are damaged: other programs own them as well."""
    order = {b"II": "<", b"MM": ">"}.get((tiff or b"")[:2])
    if tiff is None or order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        _, details = _entry(tiff, order, first, EXIF_IFD)
        length, start = _entry(tiff, order, details, USER_COMMENT)
    except (struct.error, KeyError):
        return None
    comment = tiff[start : start + length]
    if not comment.startswith(ASCII_CODE):
        return None
    return comment.removeprefix(ASCII_CODE).rstrip(b"\0 ").decode("ascii", errors="replace")


def _entry(tiff: bytes, order: str, at: int, tag: int) -> tuple[int, int]:
    """Count and value, or where that stands, of a tag in the directory at `at`. Raises KeyError."""
    (entries,) = struct.unpack_from(f"{order}H", tiff, at)
    for place in range(at + 2, at + 2 + 12 * entries, 12):
        found, _type, count, value = struct.unpack_from(f"{order}HHII", tiff, place)
        if found == tag:
            return count, value
    raise KeyError(tag)


def _exactly(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) < length:
        raise ValueError("the file is cut short")
    return content
