"""The studio and the server that it belongs to, with the model that ships."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from musiva.core.types import Kind
from musiva.cost import CostModel
from musiva.cost.work import FEATURES
from musiva.engine import Engine, shipped_models
from musiva.engine.scheduler import Scheduler
from musiva.telemetry import Metrics
from tests.server.live import live_server
from tests.studio.acting import ask, drop, seen, tiles
from tests.studio.conftest import opener

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

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
        expect(fact(page, "Sampler")).to_have_text(engine.pipeline.noise.default_sampler())
        first = download(page)
        page.keyboard.press("Escape")
        page.get_by_label("Prompt", exact=True).fill("")
        drop(page, first)
        seen(page, "The form has the parameters of")
        page.get_by_role("button", name="Generate").click()
        tiles(page, 2)
        page.locator(".tile-open").first.click()
        assert download(page) == first, "same parameters, same bytes"


# As if a row of a forward took so many seconds: nothing could be in time by chance.
SLOW_ROW = 1e-2


def slow() -> CostModel:
    """What a machine far slower than any would take."""
    seconds = {Kind.DENOISE: {"rows": SLOW_ROW}}
    weights = {
        kind: tuple(seconds.get(kind, {}).get(name, 0.0) for name in names)
        for kind, names in FEATURES.items()
    }
    return CostModel(weights)


def fact(page: Page, name: str) -> Locator:
    return page.locator(f"#viewer-facts dt:text-is('{name}') + dd")


def download(page: Page) -> bytes:
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    return started.value.path().read_bytes()


@pytest.mark.matrix
@pytest.mark.skipif("default" not in shipped_models(), reason="the default model is not shipped")
def test_refused_and_in_time_after_all(browser: Browser) -> None:
    """By a cost model that thinks it is slow, a deadline is refused that a lower quality keeps."""
    metrics = Metrics()
    config = Engine.Config(scheduler=Scheduler.Config(cost=slow()))
    with (
        Engine.load("default", config, device="cpu", observe=metrics.observe) as engine,
        live_server(engine, metrics) as address,
        opener(browser, "http://{}:{}".format(*address)) as studio,
    ):
        page = studio()
        alone = engine.seconds_alone(engine.request("a red apple"))
        expect(page.locator("#outlook-text")).to_contain_text("Ready in about")
        page.get_by_label("Deadline, seconds").fill(f"{0.6 * alone:.2f}")
        expect(page.locator("#outlook-text")).to_contain_text("It would be refused")
        page.get_by_role("button", name="All qualities").click()
        verdicts = page.locator(".floor-verdict").all_inner_texts()
        assert verdicts[0] == "too late"
        assert verdicts[-1] == ""
        ask(page, "a red apple")
        seen(page, "Refused: it would be there in about")
        expect(page.locator("#standing-refused")).to_have_text("1")
        page.get_by_role("button", name="Try a lower quality: a red apple").click()
        tiles(page, 1)
        page.locator(".tile-open").click()
        expect(fact(page, "Quality kept")).to_contain_text("as promised")
        expect(fact(page, "Came")).to_contain_text("In time, with")
        expect(page.locator("#viewer-times li")).to_have_count(4)
        page.keyboard.press("Escape")
        expect(page.locator("#standing-attainment")).to_have_text("50 %")


@pytest.mark.matrix
@pytest.mark.skipif("default" not in shipped_models(), reason="the default model is not shipped")
def test_picture_of_which_load_chose_the_quality_again(browser: Browser) -> None:
    """Levels go down for a deadline that seems near; the file says what was done instead."""
    metrics = Metrics()
    config = Engine.Config(scheduler=Scheduler.Config(cost=slow()))
    with (
        Engine.load("default", config, device="cpu", observe=metrics.observe) as engine,
        live_server(engine, metrics) as address,
        opener(browser, "http://{}:{}".format(*address)) as studio,
    ):
        page = studio()
        alone = engine.seconds_alone(engine.request("a red apple"))
        deadline = page.get_by_label("Deadline, seconds")
        page.get_by_label("Quality", exact=True).fill("50")
        page.get_by_label("Higher when there is time").check()
        deadline.fill(f"{0.4 * alone:.2f}")
        ask(page, "a red apple")
        tiles(page, 1)
        page.locator(".tile-open").click()
        expect(fact(page, "Quality kept")).to_contain_text("50")
        expect(fact(page, "Policy")).to_contain_text("marked")
        expect(fact(page, "Computed")).not_to_contain_text("(100 %)")
        first = download(page)
        page.get_by_role("button", name="Use parameters").click()
        deadline.fill("")
        page.get_by_role("button", name="Generate").click()
        tiles(page, 2)
        page.locator(".tile-open").first.click()
        assert download(page) == first
