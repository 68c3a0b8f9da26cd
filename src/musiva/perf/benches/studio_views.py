"""All views of the studio, one after the other, as a user comes to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["ask", "make", "views"]

PROMPTS = ("a red apple", "a fox left of a pine tree on grass")
FEW_STEPS, MANY_STEPS = 4, 1000
NO_PICTURE = """() => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["a text"], "notes.txt"));
  const options = { dataTransfer, bubbles: true, cancelable: true };
  document.body.dispatchEvent(new DragEvent("drop", options));
}"""


def views(page: Page) -> Iterator[str]:
    """Bring a fresh page into each view and give its name; the caller looks at it meanwhile."""
    yield "empty"
    page.locator("summary").click()
    page.locator("#steps").fill("0")
    page.locator("#shift").fill("0")
    ask(page, "")
    page.locator("#prompt-error").wait_for()
    yield "errors in the form"
    page.locator("#shift").fill("")
    ask(page, PROMPTS[0], steps=MANY_STEPS)
    ask(page, PROMPTS[1], steps=MANY_STEPS)
    page.locator(".is-preview").wait_for()
    yield "running"
    page.locator("#cancel-all").click()
    for prompt in PROMPTS:
        make(page, prompt, steps=FEW_STEPS)
    page.evaluate(NO_PICTURE)
    page.locator(".toast").wait_for()
    yield "gallery and message"
    page.locator(".tile-open").first.click()
    yield "picture"
    page.keyboard.press("Escape")
    for index in range(2):
        page.locator(".tile").nth(index).hover()
        page.locator(".tile-choose").nth(index).click()
    yield "two chosen"
    page.locator("#compare-start").click()
    yield "compare by wipe"
    page.get_by_role("radio", name="Side by side").check()
    yield "compare side by side"
    page.keyboard.press("Escape")
    page.locator("#help-button").click()
    yield "help"


def ask(page: Page, prompt: str, *, steps: int | None = None) -> None:
    """Fill in the form and send it; without `steps`, as many as there are."""
    page.locator("#prompt").fill(prompt)
    if steps is not None:
        page.locator("#steps").fill(str(steps))
    page.locator("#generate").click()


def make(page: Page, prompt: str, *, steps: int | None = None) -> None:
    """Ask, and wait for the picture."""
    before = page.locator(".tile").count()
    ask(page, prompt, steps=steps)
    page.locator(".tile").nth(before).wait_for()
