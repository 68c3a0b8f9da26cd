"""Parameters in pictures: written, read again, and refused in clear words."""

from __future__ import annotations

import io
import json
from pathlib import Path

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


@pytest.mark.parametrize("most", [40, 20])
def test_a_picture_of_too_many_pixels_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(InvalidInput, match=f"^picture: got .*; allowed: {most} pixels at most$"):
        read_parameters(saved("PNG", PARAMETERS))


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
