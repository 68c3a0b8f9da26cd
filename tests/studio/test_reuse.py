"""Parameters out of pictures, and into programs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from musiva.core.provenance import exif, png_info
from tests.studio.acting import drop, make, seen, tiles
from tests.studio.fake import FakeServer, png

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect

PARAMETERS: dict[str, object] = {
    "model": "default",
    "prompt": 'ein Fuchs, "quoted", it\'s 狐\nand a line',
    "negative_prompt": "text",
    "size": "144x112",
    "steps": 12,
    "seed": 9223372036854775807,
    "guidance_scale": 2.5,
    "sampler": "euler",
    "spacing": "karras",
    "shift": 1.5,
    "quality": 100,
}
READ = """
async (content) => {
  const { readParameters } = await import("/studio/metadata.js");
  return readParameters(Uint8Array.from(content));
}
"""


def picture(kind: str, parameters: dict[str, object] | None) -> bytes:
    buffer = io.BytesIO()
    small = Image.new("RGB", (16, 16), "teal")
    if parameters is None:
        small.save(buffer, kind)
    elif kind == "PNG":
        small.save(buffer, kind, pnginfo=png_info(parameters))
    else:
        small.save(buffer, kind, exif=exif(parameters))
    return buffer.getvalue()


def test_picture_dropped_on_the_page(page: Page, fake: FakeServer) -> None:
    prompt = page.get_by_label("Prompt", exact=True)
    expected = {key: value for key, value in PARAMETERS.items() if key not in ("model", "quality")}
    for number, kind in enumerate(("png", "webp", "jpeg")):
        prompt.fill("before")
        drop(page, picture(kind.upper(), PARAMETERS), f"fox.{kind}", f"image/{kind}")
        seen(page, f'The form has the parameters of "fox.{kind}".')
        expect(prompt).to_have_value(str(PARAMETERS["prompt"]))
        page.get_by_role("button", name="Generate").click()
        tiles(page, number + 1)
        assert {key: fake.bodies[number][key] for key in expected} == expected
        page.get_by_role("button", name="Undo").click()
        expect(prompt).to_have_value("before")


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def test_every_way_to_write_the_text(page: Page) -> None:
    """Other programs that save a picture again may write its text in another kind of chunk, behind
    the pixels, or its comment in another character set.
    """
    plain = picture("PNG", None)
    head, tail = plain[:33], plain[33:]
    unusual = "{" + '"prompt": "caf\\u00e9 €狐"' + "}"
    compressed = zlib.compress(unusual.encode())
    international = PngInfo()
    international.add_itxt("musiva", unusual)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG", pnginfo=international)
    latin = json.dumps({"prompt": "café"}, ensure_ascii=False).encode("latin-1")
    packed = b"musiva\0\1\0de\0\0" + compressed
    end = len(plain) - 12
    files = {
        "iTXt": (buffer.getvalue(), "café €狐"),
        "iTXt compressed": (head + chunk(b"iTXt", packed) + tail, "café €狐"),
        "zTXt": (head + chunk(b"zTXt", b"musiva\0\0" + zlib.compress(latin)) + tail, "café"),
        "tEXt": (head + chunk(b"tEXt", b"musiva\0" + latin) + tail, "café"),
        "behind": (plain[:end] + chunk(b"tEXt", b"musiva\0" + latin) + plain[end:], "café"),
    }
    fields = Image.Exif()
    unicode = b"UNICODE\0" + unusual.encode("utf-16le" if sys.byteorder == "little" else "utf-16be")
    fields.get_ifd(0x8769)[0x9286] = unicode
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "WEBP", exif=fields.tobytes())
    content = fields.tobytes()
    order = content[6:8] if content.startswith(b"Exif") else content[:2]
    if (order == b"II") == (sys.byteorder == "little"):
        files["EXIF UNICODE"] = (buffer.getvalue(), "café €狐")
    for name, (content, prompt) in files.items():
        assert page.evaluate(READ, list(content)) == {"prompt": prompt}, name


def test_damaged_pictures_carry_nothing(page: Page) -> None:
    """Whatever is cut off or wrong in a file, reading it gives parameters or null and ends."""
    for kind in ("PNG", "WEBP", "JPEG"):
        whole = picture(kind, PARAMETERS)
        lengths = range(0, len(whole), max(len(whole) // 25, 1))
        found = page.evaluate(
            """async (files) => {
              const { readParameters } = await import("/studio/metadata.js");
              return Promise.all(files.map((file) => readParameters(Uint8Array.from(file))));
            }""",
            [list(whole[:length]) for length in lengths]
            + [list(whole[:20] + bytes([255] * 20) + whole[40:])],
        )
        assert all(one is None or one["prompt"] == PARAMETERS["prompt"] for one in found)
        assert found[0] is None
    broken = png_with(b"musiva\0{not json")
    listed = png_with(b'musiva\0["a list"]')
    bent = png_with(b'musiva\0{"prompt": "a fox", "steps": "many", "seed": 1.5, "n": 2}')
    assert page.evaluate(READ, list(broken)) is None
    assert page.evaluate(READ, list(listed)) is None
    assert page.evaluate(READ, list(bent)) == {"prompt": "a fox", "n": 2}


def png_with(data: bytes) -> bytes:
    plain = picture("PNG", None)
    return plain[:33] + chunk(b"tEXt", data) + plain[33:]


def test_what_carries_nothing_changes_nothing(page: Page) -> None:
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("still here")
    page.get_by_label("Seed", exact=True).fill("5")
    for content, name, message in (
        (picture("PNG", None), "plain.png", '"plain.png" carries no parameters'),
        (b"GIF89a, not ours", "moving.gif", '"moving.gif" is no PNG, WebP or JPEG picture.'),
        (b"", "empty.png", '"empty.png" is no PNG, WebP or JPEG picture.'),
        (b"\x89PNG\r\n\x1a\n\0\0", "cut.png", '"cut.png" carries no parameters'),
    ):
        drop(page, content, name)
        seen(page, message)
        seen(page, "The form stays as it is.")
        expect(prompt).to_have_value("still here")
        expect(page.get_by_label("Seed", exact=True)).to_have_value("5")


def test_parameters_outside_of_the_limits_are_shown_and_refused(
    page: Page, fake: FakeServer
) -> None:
    other = {**PARAMETERS, "model": "sdxl", "size": "1024x1024", "sampler": "ddim"}
    drop(page, picture("PNG", other))
    seen(page, 'It was made by the model "sdxl".')
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#size-error")).to_contain_text("multiples of 16 from 64 to 256")
    expect(page.locator("#sampler-error")).to_have_text('This model has no sampler "ddim".')
    expect(page.locator("#width")).to_have_value("1024")
    assert fake.bodies == []


def test_chosen_and_pasted_files(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    path.write_bytes(png({"prompt": "a chosen fox", "seed": 3}))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="From a picture").click()
    chooser.value.set_files(path)
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_value("a chosen fox")
    expect(prompt).to_be_focused()
    page.evaluate(
        """(content) => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([Uint8Array.from(content)], "p.png"));
          document.activeElement.dispatchEvent(
            new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }""",
        list(png({"prompt": "a pasted owl", "seed": 3})),
    )
    expect(prompt).to_have_value("a pasted owl")


def test_picture_of_the_gallery_dragged_onto_the_form(page: Page, fake: FakeServer) -> None:
    make(page, "a fox")
    page.get_by_label("Prompt", exact=True).fill("other words")
    page.drag_and_drop(".tile", "#form")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox")
    make(page, "a fox")
    assert fake.bodies[0]["seed"] == fake.bodies[1]["seed"]


def snippet(page: Page, language: str) -> str:
    page.get_by_role("radio", name=language, exact=True).check()
    return page.locator("#viewer-code").inner_text()


def test_snippets_work(page: Page, fake: FakeServer, tmp_path: Path) -> None:
    drop(page, picture("PNG", PARAMETERS))
    page.get_by_role("button", name="Generate").click()
    tiles(page, 1)
    page.locator(".tile-open").click()
    made = fake.bodies.pop()
    curl = snippet(page, "curl")
    done = subprocess.run(["sh", "-c", curl], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.iterdir()
    with Image.open(path) as saved:
        assert saved.size == (144, 112)
    texts = {"musiva": snippet(page, "Python"), "openai": snippet(page, "Python, openai")}
    for text in texts.values():
        run = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True)
        assert run.returncode == 0, run.stderr.decode()
    assert len(fake.bodies) == 3
    ours = {key for key in PARAMETERS if key != "quality"} - {"model"}
    for body in fake.bodies:
        assert {key: body[key] for key in ours} == {key: made[key] for key in ours}


def test_copying(page: Page, fake: FakeServer) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    make(page, "a fox")
    page.locator(".tile-open").click()
    page.get_by_role("button", name="Copy").click()
    seen(page, "Copied.")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == page.locator("#viewer-code").text_content()
    page.evaluate("""() => {
      navigator.clipboard.writeText = () => Promise.reject(new Error("forbidden"));
      document.execCommand = () => false;
    }""")
    page.get_by_role("button", name="Copy").click()
    seen(page, "The text is selected: press Ctrl+C.")
    assert page.evaluate("() => getSelection().toString()").startswith("curl")


def test_download_is_the_file_of_the_server(page: Page, fake: FakeServer) -> None:
    make(page, "A Fox, and more")
    page.locator(".tile-open").click()
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    seed = fake.bodies[0]["seed"]
    assert started.value.suggested_filename == f"a-fox-and-more-{seed}.png"
    content = started.value.path().read_bytes()
    assert content == png(fake.bodies[0])
