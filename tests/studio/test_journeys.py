"""From a prompt to a picture, and the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.studio.acting import ask, make, seen, tiles
from tests.studio.fake import FakeServer, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect


def test_prompt_preview_picture(page: Page, fake: FakeServer) -> None:
    fake.let_go.clear()
    ask(page, "a fox left of a pine tree on grass")
    preview = page.locator(".stage-cell.is-preview img")
    expect(preview).to_have_attribute("alt", "Preview: a fox left of a pine tree on grass")
    seen(page, "Evaluation 3 of 6")
    assert page.title() == "50 % · Musiva"
    [body] = fake.bodies
    seed = page.get_by_label("Seed", exact=True).input_value()
    assert body == {
        "prompt": "a fox left of a pine tree on grass",
        "size": "128x128",
        "steps": 20,
        "guidance_scale": 4,
        "sampler": "euler",
        "n": 1,
        "seed": int(seed),
        "stream": True,
        "progress": True,
        "partial_images": 6,
        "partial_format": "jpeg",
    }
    fake.let_go.set()
    tiles(page, 1)
    expect(page.locator(".stage-cell img")).to_have_attribute("alt", str(body["prompt"]))
    expect(page.locator("#queue")).to_be_hidden()
    expect(page.locator("#stage-caption")).to_contain_text(f"128 × 128 · 20 steps · seed {seed}")
    natural = page.evaluate("() => document.querySelector('.stage-cell img').naturalWidth")
    assert natural == 128
    assert page.title() == "Musiva"


def test_queue_of_three_and_cancel(page: Page, fake: FakeServer) -> None:
    fake.let_go.clear()
    for prompt in ("one", "two", "three"):
        ask(page, prompt)
    expect(page.locator("#queue-heading")).to_have_text("3 requests")
    seen(page, "Waiting for its turn")
    wait_until(lambda: fake.running == 2)
    assert [body["prompt"] for body in fake.bodies] == ["one", "two"]
    page.get_by_role("button", name="Cancel: one").click()
    wait_until(lambda: "left" in fake.ended)
    wait_until(lambda: len(fake.bodies) == 3)
    fake.let_go.set()
    tiles(page, 2)
    alts = [image.get_attribute("alt") for image in page.locator(".tile img").all()]
    assert sorted(map(str, alts)) == ["three", "two"]


def test_cancel_all(page: Page, fake: FakeServer) -> None:
    fake.let_go.clear()
    for prompt in ("one", "two", "three"):
        ask(page, prompt)
    page.locator(".is-preview").wait_for()
    page.get_by_role("button", name="Cancel all").click()
    expect(page.locator("#queue")).to_be_hidden()
    wait_until(lambda: fake.ended == ["left", "left"] and fake.running == 0)
    assert len(fake.bodies) == 2
    expect(page.get_by_text("What should the picture show?")).to_be_visible()


def test_several_pictures_of_one_request(page: Page, fake: FakeServer) -> None:
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Pictures", exact=True).fill("3")
    page.get_by_label("Not in the picture", exact=True).fill("text")
    page.get_by_label("Seed", exact=True).fill("9007199254740993123")
    ask(page, "an owl")
    tiles(page, 3)
    [body] = fake.bodies
    assert (body["n"], body["negative_prompt"]) == (3, "text")
    assert body["seed"] == 9007199254740993123, "a seed keeps all its digits"
    assert page.locator(".stage-cell").count() == 3
    page.locator(".stage-cell").nth(2).click()
    expect(page.get_by_role("definition").filter(has_text="9007199254740993125")).to_be_visible()


def test_seed_is_new_each_time_unless_it_is_locked(page: Page, fake: FakeServer) -> None:
    make(page, "a", "b")
    first, second = (body["seed"] for body in fake.bodies)
    assert first != second
    lock = page.get_by_role("button", name="Keep this seed")
    expect(lock).to_have_attribute("aria-pressed", "false")
    lock.click()
    make(page, "c")
    assert fake.bodies[2]["seed"] == second
    page.get_by_label("Seed", exact=True).fill("7")
    make(page, "d")
    expect(lock).to_have_attribute("aria-pressed", "true")
    lock.click()
    make(page, "e")
    assert fake.bodies[3]["seed"] == 7
    assert fake.bodies[4]["seed"] != 7


def test_surprise_can_be_undone_and_examples_begin(page: Page, fake: FakeServer) -> None:
    prompt = page.get_by_label("Prompt", exact=True)
    chip = page.locator(".chip").first
    words = chip.inner_text()
    chip.click()
    expect(prompt).to_have_value(words)
    prompt.fill("my own words")
    page.get_by_role("button", name="Surprise me").click()
    expect(prompt).not_to_have_value("my own words")
    page.get_by_role("button", name="Undo").click()
    expect(prompt).to_have_value("my own words")


def test_another_size_and_sampler(page: Page, fake: FakeServer) -> None:
    page.get_by_label("Size", exact=True).select_option(label="Other size…")
    page.get_by_label("Width", exact=True).fill("256")
    page.get_by_label("Height", exact=True).fill("64")
    page.get_by_label("Sampler", exact=True).select_option("heun")
    make(page, "a train")
    assert (fake.bodies[0]["size"], fake.bodies[0]["sampler"]) == ("256x64", "heun")
    box = page.locator(".stage-cell").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(4, rel=0.02)


def test_natural_size(page: Page) -> None:
    make(page, "a fox")
    fit = "() => getComputedStyle(document.querySelector('.stage-cell img')).objectFit"
    assert page.evaluate(fit) == "contain"
    page.get_by_role("button", name="Natural size").click()
    assert page.evaluate(fit) == "scale-down"
