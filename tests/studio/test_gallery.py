"""The gallery, the dialog of a picture, and comparing two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.studio.acting import make, seen, tiles
from tests.studio.fake import FakeServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect


def test_delete_and_undo(page: Page) -> None:
    make(page, "a fox")
    make(page, "an owl")
    page.locator(".tile-open").first.click()
    page.get_by_role("button", name="Delete", exact=True).click()
    seen(page, "1 picture deleted.")
    expect(page.locator("#viewer-prompt")).to_have_text("a fox")
    page.get_by_role("button", name="Undo").click()
    page.keyboard.press("Escape")
    tiles(page, 2)
    page.reload()
    tiles(page, 2)
    expect(page.locator(".tile img").first).to_have_attribute("alt", "an owl")


def test_use_parameters(page: Page, fake: FakeServer) -> None:
    page.get_by_label("Steps", exact=True).fill("33")
    make(page, "a fox")
    page.get_by_label("Steps", exact=True).fill("5")
    page.get_by_label("Prompt", exact=True).fill("else")
    page.locator(".tile-open").click()
    page.get_by_role("button", name="Use parameters").click()
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.keyboard.press("Control+Enter")
    tiles(page, 2)
    first, second = fake.bodies
    assert first["seed"] == second["seed"]
    assert second["steps"] == 33
    assert second["prompt"] == "a fox"


def test_compare_two(page: Page) -> None:
    page.get_by_label("Seed", exact=True).fill("1")
    make(page, "a fox")
    page.get_by_label("Seed", exact=True).fill("2")
    page.get_by_label("Size", exact=True).select_option("144x112")
    make(page, "a fox")
    tile = page.locator(".tile")
    tile.nth(1).hover()
    page.locator(".tile-choose").nth(1).click()
    seen(page, "Choose a second picture to compare.")
    expect(page.locator("#compare-start")).to_be_disabled()
    tile.nth(0).hover()
    page.locator(".tile-choose").nth(0).click()
    page.get_by_role("button", name="Compare", exact=True).click()
    rows = page.locator("#compare-rows tr")
    differing = page.locator("#compare-rows tr.differs th")
    assert differing.all_inner_texts() == ["Size", "Seed"]
    assert rows.nth(1).locator("td").all_inner_texts() == ["1", "2", "differs"]
    assert rows.nth(2).inner_text().split("\t")[0] == "Prompt"
    wipe = page.get_by_label("How much of A is shown, in percent")
    wipe.focus()
    page.keyboard.press("Home")
    edge = "() => getComputedStyle(document.querySelector('.compare-side.a')).clipPath"
    assert "100%" in page.evaluate(edge)
    box = wipe.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    assert 70 < float(wipe.input_value()) < 80
    page.get_by_role("button", name="Swap A and B").click()
    assert rows.nth(1).locator("td").all_inner_texts() == ["2", "1", "differs"]
    page.get_by_role("radio", name="Side by side").check()
    expect(wipe).to_be_hidden()
    left, right = (
        page.locator("#compare-a").bounding_box(),
        page.locator("#compare-b").bounding_box(),
    )
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"]
    page.keyboard.press("Escape")
    expect(page.locator("#compare-bar")).to_be_hidden()


def test_choosing_a_third_gives_up_the_first(page: Page) -> None:
    make(page, "a", "b", "c")
    for index in range(3):
        page.locator(".tile").nth(index).hover()
        page.locator(".tile-choose").nth(index).click()
    chosen = page.locator(".tile-choose[aria-pressed=true]")
    expect(chosen).to_have_count(2)
    expect(page.locator(".tile-choose").first).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Choose none").click()
    expect(chosen).to_have_count(0)


def test_compare_from_the_dialog(page: Page) -> None:
    make(page, "a", "b")
    page.locator(".tile-open").first.click()
    page.get_by_role("button", name="Compare with…").click()
    expect(page.locator("#compare-count")).to_have_text("Choose a second picture to compare.")
