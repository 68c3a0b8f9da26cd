"""How near to the dense run, and what of a picture is computed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.studio.acting import ask, drop, make, seen, tiles
from tests.studio.conftest import Open
from tests.studio.fake import FakeServer, png

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect

# Of 2 x 2 tiles, at six evaluations: 4 + 2 + 1 + 0 + 1 + 4 of 24.
ACTIVE = ((1, 1, 1, 1), (1, 0, 0, 1), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 1, 0), (1, 1, 1, 1))
# Opacity in the middle of each tile, row by row.
MARKED = """(canvas) => {
  const [rows, columns] = [2, 2];
  const pen = canvas.getContext("2d");
  return Array.from({ length: rows * columns }, (_, tile) => {
    const x = canvas.width * (tile % columns + 0.5) / columns;
    const y = canvas.height * (Math.floor(tile / columns) + 0.5) / rows;
    return pen.getImageData(x, y, 1, 1).data[3] > 0 ? 1 : 0;
  });
}"""


@pytest.fixture
def calibrated(studio: Open, fake: FakeServer) -> Page:
    fake.model["calibrated"] = True
    return studio()


def test_quality_is_for_calibrated_models(page: Page, fake: FakeServer) -> None:
    field = page.get_by_label("Quality", exact=True)
    expect(field).to_be_disabled()
    expect(field).to_have_value("100")
    expect(page.locator("#quality-hint")).to_contain_text("not calibrated")
    make(page, "a fox")
    assert "quality" not in fake.bodies[0]
    expect(page.locator(".tile-note")).to_have_text("Quality 100 · 100 %")
    drop(page, png({"prompt": "an owl", "seed": 1, "quality": 70}))
    seen(page, "This model is not calibrated: its quality is 100.")
    expect(field).to_have_value("100")
    page.get_by_role("button", name="Generate").click()
    tiles(page, 2)
    assert "quality" not in fake.bodies[1]


def test_quality_is_asked_for(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    field, slider = page.get_by_label("Quality", exact=True), page.locator("#quality-slider")
    expect(field).to_be_enabled()
    assert [slider.get_attribute(name) for name in ("min", "max")] == ["50", "100"]
    make(page, "a fox")
    slider.fill("70")
    expect(field).to_have_value("70")
    field.fill("80")
    expect(slider).to_have_value("80")
    make(page, "a fox")
    assert [body.get("quality") for body in fake.bodies] == [None, 80]
    expect(page.locator(".tile-note").first).to_have_text("Quality 80 · 100 %")
    page.reload()
    expect(field).to_have_value("80")
    field.fill("101")
    ask(page, "an owl")
    expect(page.locator("#quality-error")).to_have_text("A whole number from 1 to 100.")
    expect(field).to_be_focused()
    field.fill("80")
    page.locator("#more summary").click()
    page.get_by_label("Policy").fill("interval")
    ask(page, "an owl")
    expect(page.locator("#policy-error")).to_contain_text("which chooses what is computed")
    page.get_by_label("Policy").fill("")
    # A picture brings its own.
    drop(page, png({"prompt": "an owl", "seed": 1, "quality": 55}))
    expect(field).to_have_value("55")


def test_what_is_computed_is_shown_while_it_is(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    fake.tiles, fake.active = (2, 2), ACTIVE
    page.get_by_label("Quality", exact=True).fill("80")
    expect(page.locator("#spent")).to_be_hidden()
    fake.let_go.clear()
    ask(page, "a fox")
    expect(page.locator("#spent-text")).to_have_text("Computed 1 of 6 evaluations (29 %)")
    bar = page.get_by_role("progressbar", name="Computed 1 of 6 evaluations (29 %)")
    expect(bar).to_have_js_property("value", 0.2917)
    fake.let_go.set()
    tiles(page, 1)
    expect(page.locator("#spent")).to_be_hidden()
    expect(page.locator("#stage-caption")).to_contain_text("quality 80 · 50 %")
    for _ in range(2):
        expect(page.locator(".tile-note")).to_have_text("Quality 80 · 50 %")
        page.locator(".tile-open").click()
        spent = page.locator("#viewer-facts dt:text-is('Computed') + dd")
        expect(spent).to_have_text("2 of 6 evaluations (50 %)")
        quality = page.locator("#viewer-facts dt:text-is('Quality') + dd")
        expect(quality).to_have_text("80")
        page.reload()


def test_of_several_pictures_all_count(page: Page, fake: FakeServer) -> None:
    fake.held = 1
    fake.let_go.clear()
    page.locator("#more summary").click()
    page.get_by_label("Pictures", exact=True).fill("2")
    ask(page, "a fox")
    expect(page.locator("#spent-text")).to_have_text("Computed 9 of 12 evaluations (75 %)")
    fake.let_go.set()
    tiles(page, 2)


def test_active_tiles_lie_over_the_preview(page: Page, fake: FakeServer) -> None:
    fake.tiles, fake.active = (2, 2), ACTIVE
    fake.let_go.clear()
    ask(page, "a fox")
    canvas = page.locator(".stage-cell canvas")
    seen(page, "Evaluation 3 of 6")
    expect(page.locator("#spent-text")).to_contain_text("Computed 1 of 6")
    expect(canvas).to_be_hidden()
    toggle = page.get_by_role("button", name="Show the tiles that are computed")
    expect(toggle).to_have_attribute("aria-pressed", "false")
    toggle.focus()
    page.keyboard.press("Space")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    expect(canvas).to_be_visible()
    assert canvas.evaluate(MARKED) == list(ACTIVE[2])
    assert canvas.bounding_box() == page.locator(".stage-cell img").bounding_box()
    page.keyboard.press("Enter")
    expect(canvas).to_be_hidden()
    page.keyboard.press("Enter")
    fake.let_go.set()
    tiles(page, 1)
    expect(canvas).to_be_hidden()


def test_smaller_tiles_at_the_far_edges(page: Page, fake: FakeServer) -> None:
    """144 x 112 pixels in tokens of 16: of tiles of 2 x 2 tokens, the last are halves."""
    fake.tiles = (4, 5)
    fake.active = [[int(tile % 5 == 4 or tile >= 15) for tile in range(20)]] * 6
    fake.let_go.clear()
    page.locator("#active-tiles").click()
    page.locator("#size").select_option("144x112")
    ask(page, "a fox")
    canvas = page.locator(".stage-cell canvas")
    expect(canvas).to_be_visible()
    marked = "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 144, 112).data]"
    alpha = Image.frombytes("RGBA", (144, 112), bytes(canvas.evaluate(marked))).getchannel("A")
    assert alpha.crop((0, 0, 128, 96)).getbbox() is None
    assert alpha.getbbox() == (0, 0, 144, 112)
    fake.let_go.set()
    tiles(page, 1)


def test_a_server_that_tells_nothing(page: Page, fake: FakeServer) -> None:
    fake._spent = lambda evaluations: {}  # type: ignore[method-assign]
    try:
        fake.let_go.clear()
        ask(page, "a fox")
        seen(page, "Evaluation 3 of 6")
        expect(page.locator("#spent")).to_be_hidden()
        fake.let_go.set()
        tiles(page, 1)
        expect(page.locator(".tile-note")).to_have_text("Quality 100")
    finally:
        del fake._spent


def test_snippets_say_the_quality(calibrated: Page) -> None:
    page = calibrated
    page.get_by_label("Quality", exact=True).fill("80")
    make(page, "a fox")
    page.locator(".tile-open").click()
    body = page.locator("#viewer-code").inner_text().split("-d '")[1].split("' \\")[0]
    assert json.loads(body)["quality"] == 80
    page.get_by_role("radio", name="Python", exact=True).check()
    expect(page.locator("#viewer-code")).to_contain_text("quality=80,")
