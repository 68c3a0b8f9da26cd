"""A Chromium of this machine, driven by playwright, and the studio in it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from musiva.core.errors import Unavailable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["DESK", "PHONE", "open_browser", "open_studio", "why_not"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# It starts in a container too, for root too, and asks nobody else for anything.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
PATIENCE_MS = 120_000


def why_not() -> str | None:
    """What is missing for a browser, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    return None if _path() else "there is no Chromium: apt-get install chromium"


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless browser. While it is open, this thread cannot run an event loop of its own.

    Raises Unavailable if something is missing.
    """
    missing = why_not()
    if missing:
        raise Unavailable(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_path(), args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def open_studio(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page in a browser that knows nothing yet, once the form has the model's limits.

    options: of playwright's `Browser.new_context`.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(url)
    page.locator("#size option").first.wait_for(state="attached")
    yield page
    context.close()


def _path() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)
