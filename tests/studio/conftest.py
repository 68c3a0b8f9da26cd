"""One browser and one fake server for all tests of the studio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from musiva.perf.benches.studio_browser import open_browser, why_not
from tests.studio.acting import ready
from tests.studio.fake import FakeServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

DESK = (1280, 860)
PATIENCE_MS = 8000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Closed after the last test of this folder: while it is open, no other test of the same
    process can run an event loop of its own.
    """
    missing = why_not()
    if missing:
        pytest.skip(missing)
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="package")
def _fake() -> Iterator[FakeServer]:
    server = FakeServer()
    server.start()
    yield server
    server.reset()
    server.stop()


@pytest.fixture
def fake(_fake: FakeServer) -> Iterator[FakeServer]:
    _fake.reset()
    yield _fake
    _fake.let_go.set()


Open = Callable[..., "Page"]


@pytest.fixture
def studio(browser: Browser, fake: FakeServer) -> Iterator[Open]:
    """Open the studio in a browser that knows nothing yet: a function of options of
    `Browser.new_context`, and `script` to run before the page's own. Fails on errors in scripts,
    and on requests to anywhere else.
    """
    with opener(browser, fake.url) as opened:
        yield opened


@pytest.fixture
def page(studio: Open) -> Page:
    return studio()


@contextmanager
def opener(browser: Browser, url: str) -> Iterator[Open]:
    errors: list[str] = []
    contexts: list[BrowserContext] = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request", lambda r: r.url.startswith((url, "blob:", "data:")) or errors.append(r.url)
        )

    def opened(
        *, script: str | None = None, size: tuple[int, int] = DESK, **options: object
    ) -> Page:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, **options)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.on("page", watch)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.goto(url)
        ready(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors
