"""Keyboard, screen reader, phone, and less motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.studio.acting import ask, make, tiles
from tests.studio.conftest import Open
from tests.studio.fake import FakeServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect

FOCUSED = """() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const visible = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return [element.id || element.className || element.tagName, visible || element === document.body];
}"""


def focused(page: Page) -> str:
    name, visible = page.evaluate(FOCUSED)
    assert visible, f"nobody sees that {name} has the focus"
    return str(name)


def test_whole_journey_by_keyboard(page: Page, fake: FakeServer) -> None:
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("a fox")
    order = []
    expected = ["surprise", "choose-file", "size", "sampler", "steps"]
    expected += ["deadline", "seed", "seed-lock"]
    for _ in expected:
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order == expected
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#negative_prompt")).to_be_visible()
    page.keyboard.press("Control+Enter")
    tiles(page, 1)
    make(page, "b", "c")
    page.locator("body").press("g")
    assert focused(page) == "tile-open"
    for key, index in (("ArrowRight", 1), ("End", 2), ("ArrowRight", 2), ("Home", 0)):
        page.keyboard.press(key)
        expect(page.locator(".tile-open").nth(index)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog")
    expect(viewer).to_be_visible()
    expect(viewer).to_have_accessible_name("Picture 2 of 3")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-position")).to_have_text("Picture 3 of 3")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-position")).to_have_text("Picture 3 of 3")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator(".tile-open").nth(1)).to_be_focused()
    page.keyboard.press("Delete")
    tiles(page, 2)
    expect(page.locator(".tile-open").nth(1)).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("?")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_accessible_name("Help")


def test_keys_of_one_letter_can_be_switched_off(page: Page) -> None:
    page.locator("#help-button").click()
    page.get_by_label("Keys of one letter").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    page.locator("#theme").press("?")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_tab_stops_once_in_the_gallery(page: Page) -> None:
    make(page, "a", "b", "c")
    page.locator(".tile-open").first.focus()
    page.keyboard.press("Tab")
    assert focused(page) == "tile-choose"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    stops = page.locator(".gallery button[tabindex='0']")
    expect(stops).to_have_count(2)


def test_announcements_are_few_and_say_what_matters(page: Page, fake: FakeServer) -> None:
    page.evaluate("""() => {
      window.said = [];
      new MutationObserver(() => {
        const text = document.getElementById("live").textContent;
        if (text) window.said.push(text);
      }).observe(document.getElementById("live"), { childList: true });
    }""")
    make(page, "a fox")
    page.wait_for_timeout(150)
    assert page.evaluate("() => window.said") == ["Started.", "Ready: a fox"]
    assert page.locator("#live").get_attribute("role") == "status"


def test_landmarks_and_headings(page: Page, fake: FakeServer) -> None:
    make(page, "a fox")
    expect(page.get_by_role("banner")).to_be_visible()
    expect(page.get_by_role("main")).to_be_visible()
    expect(page.get_by_role("form", name="New picture")).to_be_visible()
    expect(page.get_by_role("region", name="Gallery")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("Musiva")
    expect(page.get_by_role("list", name="Gallery").get_by_role("listitem")).to_have_count(1)
    progress = page.get_by_role("progressbar", name="Progress: an owl")
    fake.let_go.clear()
    ask(page, "an owl")
    progress.wait_for()


PHONE = {"size": (390, 844), "has_touch": True, "is_mobile": True}
WIDTHS = "() => [document.documentElement.scrollWidth, innerWidth]"


def fits(page: Page) -> None:
    needed, there = page.evaluate(WIDTHS)
    assert needed <= there
    dialog = page.locator("dialog[open]")
    if dialog.count():
        inner = dialog.evaluate("(element) => [element.scrollWidth, element.clientWidth]")
        assert inner[0] <= inner[1]


@pytest.mark.parametrize("width", [390, 320])
def test_phone(studio: Open, fake: FakeServer, width: int) -> None:
    page = studio(**{**PHONE, "size": (width, 844)})
    fits(page)
    long = "a fox " + "extraordinarily" * 8
    fake.let_go.clear()
    ask(page, long)
    page.locator(".is-preview").wait_for()
    expect(page.locator("#stage")).to_be_in_viewport()
    fits(page)
    fake.let_go.set()
    tiles(page, 1)
    make(page, "an owl")
    page.locator(".tile-open").last.tap()
    fits(page)
    page.locator("#viewer [data-close]").tap()
    for tile in page.locator(".tile-choose").all():
        tile.tap()
    fits(page)
    page.locator("#compare-start").tap()
    fits(page)
    page.get_by_role("radio", name="Side by side").check()
    fits(page)
    page.locator("#compare [data-close]").tap()
    page.locator("summary").tap()
    page.locator("#help-button").tap()
    fits(page)
    sizes = page.evaluate("""() => [...document.querySelectorAll("input, textarea, select")]
      .filter((e) => e.checkVisibility() && !["range", "checkbox"].includes(e.type))
      .map((e) => parseFloat(getComputedStyle(e).fontSize))""")
    assert min(sizes) >= 16, "phones zoom into fields of smaller text"


def test_less_motion(studio: Open, fake: FakeServer) -> None:
    moving = """() => document.getAnimations().map((one) => one.animationName)"""
    fake.seconds = 30  # nothing to see before the test is over
    page = studio(reduced_motion="no-preference")
    ask(page, "a fox")
    page.locator(".skeleton").first.wait_for()
    assert "shimmer" in page.evaluate(moving)
    still = studio(reduced_motion="reduce")
    ask(still, "a fox")
    still.locator(".skeleton").first.wait_for()
    assert still.evaluate(moving) == []
