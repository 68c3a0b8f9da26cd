"""The studio and the server that it belongs to, with the model that ships."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from musiva.engine import Engine, shipped_models
from musiva.telemetry import Metrics
from tests.server.live import live_server
from tests.studio.acting import ask, drop, seen, tiles
from tests.studio.conftest import opener

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect

COUNT_PREVIEWS = """() => {
  window.previews = new Set();
  new MutationObserver(() => {
    const image = document.querySelector(".is-preview img");
    if (image) window.previews.add(image.src);
  }).observe(document.getElementById("stage"), { subtree: true, attributes: true });
}"""


@pytest.mark.skipif("default" not in shipped_models(), reason="the default model is not shipped")
def test_from_the_first_page_to_the_same_picture_again(browser: Browser) -> None:
    metrics = Metrics()
    with (
        Engine.load("default", device="cpu", observe=metrics.observe) as engine,
        live_server(engine, metrics) as address,
        opener(browser, "http://{}:{}".format(*address)) as studio,
    ):
        page = studio()
        page.get_by_label("Steps", exact=True).fill("5")
        page.evaluate(COUNT_PREVIEWS)
        ask(page, "a red apple")
        tiles(page, 1)
        assert page.evaluate("() => window.previews.size") > 1
        page.locator(".tile-open").click()
        sampler = page.locator("#viewer-facts dt:text-is('Sampler') + dd")
        expect(sampler).to_have_text(engine.pipeline.noise.default_sampler())
        with page.expect_download() as started:
            page.get_by_role("link", name="Download").click()
        first = started.value.path().read_bytes()
        page.keyboard.press("Escape")
        page.get_by_label("Prompt", exact=True).fill("")
        drop(page, first)
        seen(page, "The form has the parameters of")
        page.get_by_role("button", name="Generate").click()
        tiles(page, 2)
        page.locator(".tile-open").first.click()
        with page.expect_download() as started:
            page.get_by_role("link", name="Download").click()
        assert started.value.path().read_bytes() == first, "same parameters, same bytes"
