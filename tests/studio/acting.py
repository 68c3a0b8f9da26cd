"""What a person does in the studio, and what they then see."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["SEEN_MS", "ask", "drop", "make", "ready", "seen", "tiles"]

SEEN_MS = 8000
DROP = """
([content, name, type]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragover", "drop"]) {
    const options = { dataTransfer, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new DragEvent(kind, options));
  }
}
"""


def ready(page: Page) -> None:
    """Wait until the form knows the model's limits."""
    from playwright.sync_api import expect

    expect(page.locator("#size option")).not_to_have_count(0, timeout=SEEN_MS)


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Generate").click()


def make(page: Page, *prompts: str) -> None:
    """Ask, and wait for the pictures."""
    before = page.locator(".tile").count()
    for prompt in prompts:
        ask(page, prompt)
    tiles(page, before + len(prompts))


def tiles(page: Page, number: int) -> None:
    """Wait until the gallery has that many pictures."""
    from playwright.sync_api import expect

    expect(page.locator(".tile")).to_have_count(number, timeout=SEEN_MS)


def seen(page: Page, text: str) -> None:
    """Wait until somewhere it says so."""
    page.get_by_text(text).filter(visible=True).first.wait_for(timeout=SEEN_MS)


def drop(page: Page, content: bytes, name: str = "picture.png", kind: str = "image/png") -> None:
    """Drag a file from somewhere else onto the page."""
    page.evaluate(DROP, [base64.b64encode(content).decode(), Path(name).name, kind])
