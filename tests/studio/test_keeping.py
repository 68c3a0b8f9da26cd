"""What is kept: requests of a tab, pictures of the browser, and what the user chose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.studio.acting import ask, make, seen, tiles
from tests.studio.conftest import Open
from tests.studio.fake import FakeServer, Fault, seeds, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect

FILL = """
async (number) => {
  const { PictureStore, MAX_PICTURES } = await import("/studio/pictures.js");
  const store = new PictureStore(() => {});
  await store.open();
  const picture = (i) => ({
    id: `old-${i}`, request: `old-${i}`, created: i, seconds: 1,
    width: 1, height: 1, type: "image/png", bytes: new Uint8Array([1]),
    parameters: { prompt: `old ${i}`, seed: String(i) },
  });
  await store.put(Array.from({ length: MAX_PICTURES - number }, (_, i) => picture(i)));
}
"""


def test_reload_during_a_run(page: Page, fake: FakeServer) -> None:
    fake.let_go.clear()
    for prompt in ("one", "two", "three"):
        ask(page, prompt)
    page.locator(".is-preview").wait_for()
    wait_until(lambda: fake.running == 2)
    page.reload()
    seen(page, "The page was left before 3 requests had ended: sent again.")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("three")
    wait_until(lambda: fake.ended.count("left") >= 2)
    fake.let_go.set()
    tiles(page, 3)
    assert len(fake.bodies) >= 5
    assert [len(found) for found in seeds(fake.bodies).values()] == [1, 1, 1]
    page.reload()
    tiles(page, 3)
    expect(page.locator("#queue")).to_be_hidden()


def test_leaving_the_page_and_coming_back(page: Page, fake: FakeServer) -> None:
    fake.let_go.clear()
    ask(page, "a fox")
    page.locator(".is-preview").wait_for()
    page.goto("about:blank")
    wait_until(lambda: fake.running == 0)
    fake.let_go.set()
    page.go_back()
    tiles(page, 1)
    assert fake.bodies[0] == fake.bodies[1]


def test_failed_request_survives_but_is_not_sent_again(page: Page, fake: FakeServer) -> None:
    fake.faults.append(Fault(500, {"message": "broke", "code": "internal_error"}))
    ask(page, "a fox")
    seen(page, "broke")
    page.reload()
    seen(page, "broke")
    make(page, "an owl")
    assert [body["prompt"] for body in fake.bodies] == ["a fox", "an owl"]


def test_two_tabs_share_pictures_and_not_requests(page: Page, fake: FakeServer) -> None:
    other = page.context.new_page()
    other.goto(fake.url)
    make(page, "a fox")
    tiles(other, 1)
    fake.let_go.clear()
    ask(other, "an owl")
    other.locator(".is-preview").wait_for()
    expect(page.locator("#queue")).to_be_hidden()
    fake.let_go.set()
    tiles(page, 2)
    page.locator(".tile-open").first.focus()
    page.keyboard.press("Delete")
    tiles(other, 1)
    page.get_by_role("button", name="Undo").click()
    tiles(other, 2)
    alts = [image.get_attribute("alt") for image in other.locator(".tile img").all()]
    assert alts == ["an owl", "a fox"], "newest first"


def test_picture_deleted_elsewhere_leaves_the_open_dialog(page: Page, fake: FakeServer) -> None:
    make(page, "a fox")
    make(page, "an owl")
    other = page.context.new_page()
    other.goto(fake.url)
    tiles(other, 2)
    page.locator(".tile-open").first.click()
    expect(page.locator("#viewer-prompt")).to_have_text("an owl")
    other.locator(".tile-open").first.focus()
    other.keyboard.press("Delete")
    expect(page.locator("#viewer-prompt")).to_have_text("a fox")
    other.locator(".tile-open").first.focus()
    other.keyboard.press("Delete")
    expect(page.locator("#viewer")).to_be_hidden()


@pytest.mark.matrix
def test_the_oldest_leave(page: Page, fake: FakeServer) -> None:
    page.evaluate(FILL, 1)
    page.reload()
    expect(page.locator("#gallery-count")).to_have_text("499")
    tiles(page, 60)
    ask(page, "new 1")
    expect(page.locator("#gallery-count")).to_have_text("500")
    ask(page, "new 2")
    expect(page.locator(".tile img").first).to_have_attribute("alt", "new 2")
    expect(page.locator("#gallery-count")).to_have_text("500")
    seen(page, "Of more than 500 pictures the oldest leave.")
    page.get_by_role("button", name="Show more").click()
    tiles(page, 120)
    for _ in range(7):
        page.get_by_role("button", name="Show more").click()
    tiles(page, 500)
    expect(page.locator(".tile img").last).to_have_attribute("alt", "old 1")
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    page.get_by_role("button", name="Delete all").click()
    tiles(page, 0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#gallery-count")).to_have_text("500")


def test_theme_is_kept_and_follows_the_system_otherwise(studio: Open) -> None:
    ground = "() => getComputedStyle(document.body).backgroundColor"
    page = studio(color_scheme="dark")
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    theme = page.get_by_role("button", name="Theme")
    theme.click()
    expect(theme).to_have_accessible_name("Theme: light")
    theme.click()
    assert page.evaluate(ground) == dark
    page.reload()
    assert page.evaluate(ground) == dark
    expect(page.get_by_role("button", name="Theme")).to_have_accessible_name("Theme: dark")
