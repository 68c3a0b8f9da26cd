"""Parameters in pictures: written, read again, and refused in clear words."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from musiva.core.errors import InvalidInput
from musiva.core.provenance import exif, png_info, read_parameters

PARAMETERS = {"prompt": 'eine Füchsin 🦊 & "a\\b"\n', "seed": 2**63, "steps": 3, "shift": None}


def saved(
    file_format: str, parameters: dict[str, object] | None = None, **options: object
) -> bytes:
    buffer = io.BytesIO()
    if parameters is not None and file_format == "PNG":
        options["pnginfo"] = png_info(parameters)
    elif parameters is not None:
        options["exif"] = exif(parameters)
    Image.new("RGB", (8, 8), "red").save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_what_is_written_is_read_from_path_bytes_and_file(tmp_path: Path, file_format: str) -> None:
    content = saved(file_format, PARAMETERS)
    path = tmp_path / "picture"
    path.write_bytes(content)
    assert read_parameters(content) == PARAMETERS
    assert read_parameters(path) == read_parameters(str(path)) == PARAMETERS
    assert read_parameters(io.BytesIO(content)) == PARAMETERS


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_other_programs_see_who_made_it(file_format: str) -> None:
    with Image.open(io.BytesIO(saved(file_format, PARAMETERS))) as picture:
        software = picture.info.get("Software") or picture.getexif()[0x0131]
    assert software.startswith("musiva ")


def test_a_chunk_behind_the_pixels_is_found() -> None:
    plain = saved("PNG")
    chunk = saved("PNG", PARAMETERS)
    at = chunk.index(b"tEXtmusiva") - 4
    length = 12 + int.from_bytes(chunk[at : at + 4], "big")
    moved = plain[:-12] + chunk[at : at + length] + plain[-12:]
    assert read_parameters(moved) == PARAMETERS


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_without_parameters(file_format: str) -> None:
    with pytest.raises(InvalidInput, match=r"^picture: got .*carries no parameters") as caught:
        read_parameters(saved(file_format))
    assert caught.value.field == "picture"


def comment(content: bytes) -> bytes:
    fields = Image.Exif()
    fields.get_ifd(0x8769)[0x9286] = content
    return saved("JPEG", exif=fields.tobytes())


@pytest.mark.parametrize("content", [b"", b"ASCII", b"UNICODE\0a\0b\0", b"\0" * 8 + b"{}"])
def test_a_comment_of_another_program(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="carries no parameters"):
        read_parameters(comment(content))


@pytest.mark.parametrize(
    "text", ["x", "{", "[]", "3", "null", "{}", '{"prompt": 3}', '{"grid": ["a"]}', "[" * 5000]
)
def test_parameters_that_are_garbage(text: str) -> None:
    info = PngInfo()
    info.add_text("musiva", text)
    for content in (saved("PNG", pnginfo=info), comment(b"ASCII\0\0\0" + text.encode())):
        with pytest.raises(InvalidInput, match="is no body for POST"):
            read_parameters(content)


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"no picture", saved("GIF"), saved("PNG")[:40]]
)
def test_what_is_no_picture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="a whole PNG, JPEG or WebP file") as caught:
        read_parameters(path)
    assert caught.value.value == str(path)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png_with(*chunks: bytes, side: int = 8) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


BODY = json.dumps(PARAMETERS).encode()
PACKED = zlib.compress(BODY)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"musiva\0\0" + PACKED),
        png_chunk(b"iTXt", b"musiva\0\0\0de\0Mosaik\0" + BODY),
        png_chunk(b"iTXt", b"musiva\0\1\0\0\0" + PACKED),
    ],
)
def test_what_other_programs_make_of_the_chunk(chunk: bytes) -> None:
    others = png_chunk(b"tEXt", b"Comment\0musiva"), png_chunk(b"pHYs", b"\0" * 9)
    assert read_parameters(png_with(*others, chunk)) == PARAMETERS


def test_pixels_are_not_unpacked_however_many_there_are() -> None:
    pixels = png_chunk(b"IDAT", b"no pixels")
    text = png_chunk(b"tEXt", b"musiva\0" + BODY)
    assert read_parameters(png_with(pixels, text, side=2**31 - 1)) == PARAMETERS


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", b"musiva\0" + BODY).replace(b"steps", b"stepz"),
        png_chunk(b"zTXt", b"musiva\0\0" + PACKED[:-5]),
        png_chunk(b"zTXt", b"musiva\0\0" + zlib.compress(b" " * (17 << 20))),
        png_chunk(b"iTXt", b"musiva\0\1"),
        png_chunk(b"iTXt", b"musiva\0"),
        png_chunk(b"iTXt", b"musiva\0\0\0\0\0\xff"),
    ],
)
def test_a_chunk_that_is_damaged(chunk: bytes) -> None:
    with pytest.raises(InvalidInput, match="a whole PNG, JPEG or WebP file"):
        read_parameters(png_with(chunk))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_whatever_is_damaged_is_read_or_refused(file_format: str) -> None:
    content = saved(file_format, PARAMETERS)
    random = Random(0)
    damaged = [content[:length] for length in range(0, len(content), 3)]
    for _ in range(300):
        one = bytearray(content)
        for _ in range(random.randrange(1, 4)):
            one[random.randrange(len(one))] = random.choice((0, 255, random.randrange(256)))
        damaged.append(bytes(one))
    refused = 0
    for one in damaged:
        try:
            read_parameters(one)
        except InvalidInput:
            refused += 1
    assert 0 < refused < len(damaged)


def test_threads_and_the_filters_of_warnings_are_left_alone() -> None:
    contents = [saved(kind, PARAMETERS) for kind in ("PNG", "JPEG", "WEBP")] * 50
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == PARAMETERS for found in pool.map(read_parameters, contents))
    assert warnings.filters == before


def test_a_pipe_is_read() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        with os.fdopen(writing, "wb") as end:
            end.write(saved("WEBP", PARAMETERS))
        assert read_parameters(pipe) == PARAMETERS


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_exif_of_either_byte_order(file_format: str) -> None:
    pointer = struct.pack(">HHHII", 1, 0x8769, 4, 1, 26)
    entry = struct.pack(">HHHII", 1, 0x9286, 7, 8 + len(BODY), 44)
    big = b"Exif\0\0MM" + struct.pack(">HI", 42, 8) + pointer + b"\0" * 4 + entry + b"\0" * 4
    assert read_parameters(saved(file_format, exif=big + b"ASCII\0\0\0" + BODY)) == PARAMETERS


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InvalidInput, match="a file that exists"):
            read_parameters(path)


def test_parameters_longer_than_a_jpeg_can_carry() -> None:
    long = {"prompt": "🦊" * 8000}
    with pytest.raises(InvalidInput, match=r"^prompt: .*65527 bytes"):
        exif(long)
    assert read_parameters(saved("PNG", long)) == long
    fitting = {"prompt": "x" * 60_000}
    assert read_parameters(saved("JPEG", fitting)) == json.loads(json.dumps(fitting))
