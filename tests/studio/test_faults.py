"""Bad input, errors of the server, and a server that goes away."""

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

BAD = {
    "#prompt": ("   ", "Say what the picture should show."),
    "#steps": ("0", "A whole number from 1 to 1000."),
    "#seed": ("9223372036854775808", "A whole number from 0 to 9223372036854775807"),
    "#guidance_scale": ("100.5", "A number from 0 to 100."),
    "#n": ("9", "A whole number from 1 to 8."),
    "#shift": ("0", "A number from 0.01 to 100."),
}


def error(message: str, param: str | None = None, code: str = "invalid_value") -> dict[str, object]:
    kind = "invalid_request_error"
    return {"message": message, "type": kind, "param": param, "code": code}


def test_bad_input_is_named_at_its_field_and_not_sent(page: Page, fake: FakeServer) -> None:
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Size", exact=True).select_option(label="Other size…")
    page.get_by_label("Width", exact=True).fill("100")
    page.get_by_label("Height", exact=True).fill("64")
    for field, (value, _) in BAD.items():
        page.locator(field).fill(value)
    page.get_by_role("button", name="Generate").click()
    for field, (_, message) in BAD.items():
        expect(page.locator(f"{field}-error")).to_contain_text(message)
        expect(page.locator(field)).to_have_attribute("aria-invalid", "true")
        assert field.removeprefix("#") in str(page.locator(field).get_attribute("aria-describedby"))
    sides = "Width and height: multiples of 16 from 64 to 256 pixels."
    expect(page.locator("#size-error")).to_have_text(sides)
    expect(page.locator("#prompt")).to_be_focused()
    assert fake.bodies == []
    page.locator("#steps").fill("")
    page.locator("#steps").press_sequentially("1e")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#steps-error")).to_contain_text("A whole number")
    page.locator("#steps").fill("2.5")
    expect(page.locator("#steps-error")).to_be_hidden()
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#steps-error")).to_contain_text("A whole number")
    assert fake.bodies == []


def test_error_of_the_server_stands_at_the_field_it_names(page: Page, fake: FakeServer) -> None:
    for param in ("prompt", "size", "steps", "sampler", "seed", "guidance_scale", "n", "spacing"):
        fake.faults.append(Fault(400, error(f"{param}: got this; allowed: that", param)))
        ask(page, "a fox")
        place = page.locator(f"#{param}-error")
        expect(place).to_have_text(f"{param}: got this; allowed: that")
        expect(place).to_be_visible()
        expect(page.locator(f"#{param}")).to_be_focused()
        row = page.locator(".row[data-status=failed]")
        expect(row).to_contain_text("got this; allowed: that")
        page.get_by_role("button", name="Remove: a fox").click()


def test_failed_request_can_be_edited_or_tried_again(page: Page, fake: FakeServer) -> None:
    fake.faults += [Fault(400, error("steps: too hard", "steps")), Fault(500, error("broke"))]
    ask(page, "a fox")
    expect(page.locator("#steps-error")).to_be_visible()
    page.get_by_label("Prompt", exact=True).fill("something else")
    page.get_by_role("button", name="Edit: a fox").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox")
    expect(page.locator("#steps-error")).to_have_text("steps: too hard")
    page.get_by_role("button", name="Generate").click()
    seen(page, "broke")
    page.get_by_role("button", name="Try again: a fox").click()
    tiles(page, 1)
    assert fake.bodies[1]["seed"] == fake.bodies[2]["seed"]


def test_error_in_the_middle_of_a_stream(page: Page, fake: FakeServer) -> None:
    fake.faults.append(Fault(error=error("NaN at step 2", None, "non_finite"), after=2))
    ask(page, "a fox")
    expect(page.locator(".row[data-status=failed]")).to_contain_text("NaN at step 2")
    page.get_by_role("button", name="Remove: a fox").click()
    expect(page.locator("#queue")).to_be_hidden()


def test_busy_server_is_asked_again_when_it_said(page: Page, fake: FakeServer) -> None:
    busy = error("the queue is full", None, "overloaded")
    fake.faults.append(Fault(429, {**busy, "type": "rate_limit_error"}, {"Retry-After": "1"}))
    ask(page, "a fox")
    seen(page, "The server is busy; it will be sent again soon")
    tiles(page, 1)
    assert fake.bodies[0] == fake.bodies[1]


def test_api_key_is_asked_for_and_kept_for_the_tab(page: Page, fake: FakeServer) -> None:
    expect(page.get_by_label("API key", exact=True)).to_be_hidden()
    fake.key = "secret"
    ask(page, "a fox")
    seen(page, "Waits for an API key")
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    page.get_by_label("API key", exact=True).fill("secret")
    page.get_by_role("button", name="Use this key").click()
    tiles(page, 1)
    page.reload()
    make(page, "an owl")
    assert page.evaluate("() => localStorage.getItem('musiva.key')") is None


def test_broken_connection_is_mended_with_the_same_seed(page: Page, fake: FakeServer) -> None:
    fake.faults.append(Fault(after=3))
    ask(page, "a fox")
    seen(page, "The connection was lost for a moment: your 1 request was sent again.")
    tiles(page, 1)
    assert fake.bodies[0] == fake.bodies[1]


@pytest.mark.matrix
def test_only_what_is_missing_is_asked_for_again(page: Page, fake: FakeServer) -> None:
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Pictures", exact=True).fill("3")
    page.get_by_label("Seed", exact=True).fill("10")
    fake.held = 1
    fake.let_go.clear()
    ask(page, "a fox")
    tiles(page, 1)
    page.locator(".is-preview").wait_for()
    fake.stop()
    seen(page, "Reconnecting…")
    fake.let_go.set()
    fake.start()
    tiles(page, 3)
    again = fake.bodies[1]
    assert (again["seed"], again["n"]) == (11, 2)
    page.locator(".tile-open").first.click()
    seeds = set()
    for _ in range(3):
        seeds.add(page.locator("#viewer-facts dt:text-is('Seed') + dd").inner_text())
        page.keyboard.press("ArrowRight")
    assert seeds == {"10", "11", "12"}


def test_request_that_breaks_the_connection_each_time_is_given_up(
    page: Page, fake: FakeServer
) -> None:
    fake.faults += [Fault(after=0)] * 6
    ask(page, "a fox")
    seen(page, "The connection broke 6 times.")
    assert len(fake.bodies) == 6
    page.get_by_role("button", name="Try again: a fox").click()
    tiles(page, 1)


def test_restart_under_the_page(page: Page, fake: FakeServer) -> None:
    fake.let_go.clear()
    for prompt in ("one", "two", "three"):
        ask(page, prompt)
    page.locator(".is-preview").wait_for()
    wait_until(lambda: fake.running == 2)
    fake.stop()
    seen(page, "Reconnecting…")
    seen(page, "The server does not answer. Trying again…")
    ask(page, "four")
    fake.let_go.set()
    fake.start()
    seen(page, "The server was restarted: your 2 requests were sent again.")
    tiles(page, 4)
    expect(page.locator("#server-state")).to_have_text("ready")
    assert [len(found) for found in seeds(fake.bodies).values()] == [1, 1, 1, 1]


def test_restart_while_nothing_runs_brings_the_new_limits(page: Page, fake: FakeServer) -> None:
    make(page, "a fox")
    fake.stop()
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    seen(page, "Reconnecting…")
    fake.model |= {"id": "another", "max_steps": 30}
    fake.start()
    seen(page, "The server was restarted.")
    expect(page.locator("#server-model")).to_have_text("another")
    page.locator("#steps").fill("31")
    ask(page, "a fox")
    expect(page.locator("#steps-error")).to_have_text("A whole number from 1 to 30.")


def test_storage_forbidden(studio: Open, fake: FakeServer) -> None:
    script = """
      for (const name of ["indexedDB", "localStorage", "sessionStorage"]) {
        const get = () => { throw new DOMException("forbidden", "SecurityError"); };
        Object.defineProperty(window, name, { get });
      }
    """
    page = studio(script=script)
    seen(page, "This browser keeps nothing for this page")
    make(page, "a fox", "an owl")
    page.get_by_role("button", name="Theme").click()
    assert page.evaluate("() => document.documentElement.dataset.theme") == "light"


def test_storage_full(studio: Open, fake: FakeServer) -> None:
    script = """
      IDBObjectStore.prototype.put = () => {
        throw new DOMException("full", "QuotaExceededError");
      };
    """
    page = studio(script=script)
    make(page, "a fox")
    seen(page, "The browser refused to store new pictures")
    page.locator(".tile-open").click()
    expect(page.locator("#viewer-prompt")).to_have_text("a fox")
