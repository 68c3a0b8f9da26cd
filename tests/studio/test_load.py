"""How busy the server is, and what a request would get now."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.studio.acting import SEEN_MS, drop, make, seen
from tests.studio.conftest import Open
from tests.studio.fake import FakeServer, png, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect

BUSY: dict[str, object] = {
    "waiting": 3,
    "running": 2,
    "backlog_seconds": 14.24,
    "backlog_floor_seconds": 4.03,
    "goodput": 0.8333,
    "attainment": 0.926,
    "refused": 4,
    "quality": 71.6,
}
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
# The parts of the line that is drawn, and where its last one ends.
DRAWN = """() => document.querySelector("#standing-history path").getAttribute("d")"""


@pytest.fixture
def calibrated(studio: Open, fake: FakeServer) -> Page:
    fake.model["calibrated"] = True
    page = studio()
    outlook(page, "Ready in about 2.0 s.")
    return page


def outlook(page: Page, text: str) -> None:
    """Wait until the line below the deadline says so."""
    expect(page.locator("#outlook-text")).to_have_text(text, timeout=SEEN_MS)


@pytest.mark.matrix
def test_standing_tells_how_busy_the_server_is(page: Page, fake: FakeServer) -> None:
    strip = page.get_by_role("region", name="How busy the server is")
    expect(strip).to_be_visible()
    expect(page.locator("#standing-running")).to_have_text("0 running")
    expect(page.locator("#standing-attainment")).to_have_text("–")
    expect(page.locator("#standing-backlog")).to_have_text("0 s")
    history = page.locator("#standing-history")
    expect(history).to_have_accessible_name("No quality was in use in the last 3 minutes")
    assert page.evaluate(DRAWN) == ""
    fake.standing = dict(BUSY)
    told = {
        "running": "2 running",
        "waiting": "3 waiting",
        "backlog": "14 s",
        "floor": "at least 4.0 s",
        "attainment": "93 %",
        "goodput": "0.83 a second",
        "refused": "4",
        "quality": "72",
    }
    for name, text in told.items():
        expect(page.locator(f"#standing-{name}")).to_have_text(text)
    fake.standing |= {"quality": 98}
    expect(history).to_have_accessible_name(
        "Quality in use over the last 3 minutes: from 72 to 98, now 98"
    )
    points = [tuple(map(float, found)) for found in re.findall(r"([\d.]+) ([\d.]+)h0", drawn(page))]
    assert points == sorted(points), "from left to right"
    assert points[0][1] > points[-1][1], "a higher quality is drawn higher"
    assert drawn(page).count("M") == 1
    fake.standing |= {"quality": None}
    expect(page.locator("#standing-quality")).to_have_text("–")
    fake.standing |= {"quality": 40}
    expect(page.locator("#standing-quality")).to_have_text("40")
    assert drawn(page).count("M") == 2, "where nothing was in use there is no line"
    heights = [float(found) for found in re.findall(r" ([\d.]+)h0", drawn(page))]
    assert all(0 <= height <= 32 for height in heights), "the scale takes all of them"


def drawn(page: Page) -> str:
    return str(page.evaluate(DRAWN))


WORKER: dict[str, object] = {
    "worker": 0,
    "phase": "ready",
    "pid": 1,
    "life": 1,
    "requests": 3,
    "waiting": 1,
    "work_seconds": 4.0,
    "steps": 120,
    "store_bytes": 3 << 20,
    "found": 0,
    "not_found": 0,
    "host": "here",
    "links": [],
}
LINK: dict[str, object] = {
    "kind": "server",
    "other": "here",
    "sent_bytes": 3 << 20,
    "received_bytes": 0,
    "transfers": 12,
    "seconds": 0.0,
    "latency": None,
    "bytes_per_second": None,
}


def test_workers_are_shown_with_what_they_have_to_do(studio: Open, fake: FakeServer) -> None:
    other = {"worker": 1, "phase": "gone", "life": 3, "requests": 0, "waiting": 0}
    fake.workers = [WORKER, {**WORKER, **other, "work_seconds": 1.0, "store_bytes": 0}]
    page = studio()
    rows = page.locator("#workers-rows tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0).locator("th, td")).to_have_text(
        ["0", "ready", "3, 1 waiting", "4.0 s", "120", "3.0 MiB", "–", "here"]
    )
    expect(rows.nth(1).locator("th, td").first).to_have_text("1 (life 3)")
    expect(page.get_by_role("columnheader", name="Found")).to_be_hidden()
    shares = page.locator(".work-bar").evaluate_all(
        "bars => bars.map(bar => bar.style.getPropertyValue('--share'))"
    )
    assert shares == ["1", "0.25"]
    ranks = {"kind": "ranks", "other": "1-3", "seconds": 2.5, "received_bytes": 1 << 20}
    host = {"kind": "host", "other": "10.0.0.2", "seconds": 0.1, "bytes_per_second": 200 << 20}
    links = [LINK, {**LINK, **ranks}, {**LINK, **host}]
    fake.workers = [{**WORKER, "found": 30, "not_found": 10, "links": links}]
    expect(rows).to_have_count(1)
    expect(page.get_by_role("columnheader", name="Found")).to_be_visible()
    expect(rows.nth(0).locator("td").nth(5)).to_have_text("30 of 40")
    sent = page.locator("#links-rows tr")
    expect(sent).to_have_count(3)
    for number, cells in enumerate(
        (
            ["0", "this server", "3.0 MiB", "0", "12", "–", "–"],
            ["0", "its rank 1-3", "3.0 MiB", "1.0 MiB", "12", "2.5 s", "–"],
            ["0", "host 10.0.0.2", "3.0 MiB", "0", "12", "0.10 s", "200.0 MiB/s"],
        )
    ):
        expect(sent.nth(number).locator("th, td")).to_have_text(cells)


@pytest.mark.parametrize("workers", [[], None])
def test_a_server_without_workers_shows_none(
    studio: Open, fake: FakeServer, workers: list[dict[str, object]] | None
) -> None:
    fake.workers = workers
    page = studio()
    expect(page.locator("#standing-running")).to_have_text("0 running")
    expect(page.locator("#workers")).to_be_hidden()


@pytest.mark.matrix
def test_standing_is_asked_gently(page: Page, fake: FakeServer) -> None:
    wait_until(lambda: fake.polls >= 2)
    page.evaluate(HIDE, True)
    page.wait_for_timeout(300)
    before = fake.polls
    page.wait_for_timeout(2500)
    assert fake.polls == before, "nobody looks"
    page.evaluate(HIDE, False)
    wait_until(lambda: fake.polls == before + 1, seconds=1)
    page.wait_for_timeout(1000)
    assert fake.polls == before + 1
    fake.stop()
    expect(page.locator("#standing-running")).to_have_text("–")
    before = fake.polls
    fake.start()
    expect(page.locator("#standing-running")).to_have_text("0 running")
    assert fake.polls >= before + 1


def test_server_that_tells_nothing_of_its_load(studio: Open, fake: FakeServer) -> None:
    fake.standing, fake.floors = None, {}
    page = studio()
    wait_until(lambda: fake.polls == 1 and len(fake.questions) == 1)
    page.get_by_label("Deadline, seconds").fill("5")
    make(page, "a fox")
    page.wait_for_timeout(2500)
    assert (fake.polls, len(fake.questions)) == (1, 1), "asked once"
    expect(page.locator("#standing")).to_be_hidden()
    expect(page.locator("#outlook")).to_be_hidden()


def test_key_that_is_missing(studio: Open, fake: FakeServer) -> None:
    fake.key = "secret"
    page = studio()
    expect(page.locator("#standing")).to_be_hidden()
    page.evaluate("() => document.getElementById('key-form').hidden = false")
    page.get_by_label("API key", exact=True).fill("secret")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#standing")).to_be_visible()
    outlook(page, "Ready in about 2.0 s.")


@pytest.mark.matrix
def test_what_a_request_would_get(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    assert [fake.questions[-1].get(name) for name in ("min_quality", "max_quality")] == [50, 100]
    quality = page.get_by_label("Quality", exact=True)
    quality.fill("65")
    outlook(page, "Ready in about 0.70 s.")
    deadline = page.get_by_label("Deadline, seconds")
    deadline.fill("1")
    outlook(page, "Ready in about 0.70 s, in time. Quality 80 would be in time too.")
    expect(page.locator("#outlook-offer")).to_be_hidden()
    quality.fill("100")
    outlook(page, "It would be refused: it takes about 2.0 s.")
    page.get_by_role("button", name="Set quality 80").click()
    expect(quality).to_have_value("80")
    expect(quality).to_be_focused()
    outlook(page, "Ready in about 0.90 s, in time.")
    deadline.fill("0.2")
    outlook(
        page,
        "It would be refused: it takes about 0.90 s. 50, the lowest, takes about 0.50 s.",
    )
    expect(page.locator("#outlook-offer")).to_be_hidden()
    deadline.fill("")
    page.get_by_label("Higher when there is time").check()
    outlook(page, "Ready in about 0.90 s, later where it can be better.")
    deadline.fill("0")
    expect(page.locator("#outlook")).to_be_hidden()
    assert all("quality" not in question for question in fake.questions)


def test_qualities_to_choose_from(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    more = page.get_by_role("button", name="All qualities")
    table = page.get_by_role("table", name="What each quality would take now")
    expect(more).to_have_attribute("aria-expanded", "false")
    expect(table).to_be_hidden()
    more.click()
    expect(more).to_have_attribute("aria-expanded", "true")
    rows = table.locator("tbody tr")
    expect(rows).to_have_count(len(fake.floors))
    assert rows.first.inner_text().split() == ["100", "2.0", "s"]
    expect(page.locator("#outlook-line")).to_be_hidden()
    page.get_by_label("Deadline, seconds").fill("1")
    expect(page.locator(".floor-verdict").first).to_have_text("too late")
    expect(page.locator(".floor-verdict").nth(2)).to_have_text("")
    expect(page.locator("#outlook-line")).to_have_text("The line is the deadline.")
    bars = [page.locator(".floor-bar").nth(i).bounding_box() for i in range(6)]
    widths = [bar["width"] for bar in bars if bar is not None]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] / widths[2] == pytest.approx(2.0 / 0.9, rel=0.1)
    chosen = page.locator(".floor[aria-pressed=true]")
    expect(chosen).to_have_text("100")
    page.get_by_role("button", name="Set quality 70").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Quality", exact=True)).to_have_value("70")
    expect(chosen).to_have_text("70")
    expect(chosen).to_be_focused()
    make(page, "a fox")
    assert fake.bodies[0]["quality"] == 70


def test_one_question_at_a_time_and_none_about_the_past(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    before = len(fake.questions)
    steps = page.get_by_label("Steps", exact=True)
    steps.fill("")
    steps.press_sequentially("321", delay=30)
    wait_until(lambda: len(fake.questions) == before + 1)
    assert fake.questions[-1]["steps"] == 321, "asked when the writing paused"
    outlook(page, "Ready in about 2.0 s.")
    fake.answering.clear()
    steps.fill("50")
    wait_until(lambda: len(fake.questions) == before + 2)
    steps.fill("60")
    wait_until(lambda: fake.given_up == 1)
    wait_until(lambda: len(fake.questions) == before + 3)
    fake.floors = dict.fromkeys(fake.floors, 7.0)
    fake.answering.set()
    outlook(page, "Ready in about 7.0 s.")
    assert fake.questions[-1]["steps"] == 60


def test_answers_follow_the_load(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    before = len(fake.questions)
    page.wait_for_timeout(2500)
    assert len(fake.questions) == before, "nothing has changed"
    fake.floors = {quality: 3 + seconds for quality, seconds in fake.floors.items()}
    fake.standing = dict(BUSY)
    outlook(page, "Ready in about 5.0 s.")
    seen(page, "3 waiting")


def test_model_without_qualities_to_choose_from(page: Page, fake: FakeServer) -> None:
    outlook(page, "Ready in about 2.0 s.")
    assert "min_quality" not in fake.questions[-1]
    expect(page.get_by_role("button", name="All qualities")).to_be_hidden()
    expect(page.get_by_label("Higher when there is time")).to_be_disabled()
    page.get_by_label("Deadline, seconds").fill("1")
    outlook(page, "It would be refused: it takes about 2.0 s.")
    drop(page, png({"prompt": "an owl", "seed": 1}))
    outlook(page, "Ready in about 2.0 s.")
    expect(page.get_by_label("Deadline, seconds")).to_have_value("")


def test_a_turn_for_the_worse_is_said_to_those_who_write(
    calibrated: Page, fake: FakeServer
) -> None:
    page = calibrated
    page.get_by_label("Deadline, seconds").fill("1")
    expect(page.locator("#live")).to_have_text("It would be refused: it takes about 2.0 s.")
    page.get_by_label("Deadline, seconds").fill("1.1")
    wait_until(lambda: fake.questions[-1].get("deadline") == 1.1)
    page.get_by_label("Deadline, seconds").fill("3")
    expect(page.locator("#live")).to_have_text("Ready in about 2.0 s, in time.")
