"""Deadlines and lowest qualities: asked for, kept or not, and refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from musiva.core.provenance import read_parameters
from tests.studio.acting import ask, drop, make, seen, tiles
from tests.studio.conftest import Open
from tests.studio.fake import FakeServer, Fault, png
from tests.studio.test_reuse import PARAMETERS, picture

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
from playwright.sync_api import expect

REFUSED = ".row[data-status=failed]"


@pytest.fixture
def calibrated(studio: Open, fake: FakeServer) -> Page:
    fake.model["calibrated"] = True
    return studio()


def quality(page: Page) -> Locator:
    return page.get_by_label("Quality", exact=True)


def rises(page: Page) -> Locator:
    return page.get_by_label("Higher when there is time")


def deadline(page: Page) -> Locator:
    return page.get_by_label("Deadline, seconds")


def fact(page: Page, name: str) -> Locator:
    return page.locator(f"#viewer-facts dt:text-is('{name}') + dd")


def test_deadline_and_floor_are_asked_for_and_kept(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    quality(page).fill("80")
    rises(page).check()
    expect(page.locator("#quality-hint")).to_contain_text("At least this")
    deadline(page).fill("7.5")
    page.reload()
    expect(quality(page)).to_have_value("80")
    expect(rises(page)).to_be_checked()
    expect(deadline(page)).to_have_value("7.5")
    make(page, "a fox")
    [body] = fake.bodies
    assert (body["min_quality"], body["max_quality"]) == (80, 100)
    assert "quality" not in body
    assert 5 < float(str(body["deadline"])) <= 7.5
    # The dense run has nothing above it.
    quality(page).fill("100")
    deadline(page).fill("")
    make(page, "a fox")
    assert not {"min_quality", "max_quality", "quality", "deadline"} & set(fake.bodies[1])


def test_what_is_not_allowed_stands_at_its_field(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    rises(page).check()
    for field, error, text, message in (
        (quality(page), "#quality-error", "0", "A whole number from 1 to 100."),
        (deadline(page), "#deadline-error", "0", "A number from 0.01 to 86400."),
        (deadline(page), "#deadline-error", "-3", "A number from 0.01 to 86400."),
    ):
        before = field.input_value()
        field.fill(text)
        ask(page, "a fox")
        expect(page.locator(error)).to_have_text(message)
        expect(field).to_be_focused()
        field.fill(before)
        expect(page.locator(error)).to_be_hidden()
    assert fake.bodies == []
    for param, place in (("deadline", "#deadline-error"), ("min_quality", "#quality-error")):
        quality(page).fill("80")
        deadline(page).fill("5")
        error = {"message": f"{param}: no", "param": param, "code": "invalid_value"}
        fake.faults.append(Fault(400, error))
        ask(page, "a fox")
        expect(page.locator(place)).to_have_text(f"{param}: no")
        page.get_by_role("button", name="Remove: a fox").click()


@pytest.mark.matrix
def test_finished_pictures_tell_how_they_fared(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    fake.used = 91
    quality(page).fill("80")
    rises(page).check()
    deadline(page).fill("5")
    make(page, "a fox")
    expect(page.locator("#live")).to_have_text("Ready: a fox")
    expect(page.locator(".tile-note")).to_have_text("Quality 91 · 100 %")
    caption = page.locator("#stage-caption")
    expect(caption).to_contain_text("quality 91 · 100 % computed · in time, with 4.1 s to spare")
    times = page.locator("#stage-times")
    expect(times.get_by_role("group", name="Where the time went")).to_be_visible()
    assert times.locator("li").all_inner_texts() == [
        "Waiting 0.18 s",
        "Prompt 0.04 s",
        "Drawing 0.63 s",
        "Decoding 0.05 s",
    ]
    parts = [times.locator(".time-bar span").nth(i).bounding_box() for i in range(4)]
    widths = [part["width"] for part in parts if part is not None]
    assert widths[2] / widths[0] == pytest.approx(0.63 / 0.18, rel=0.05)
    fake.took = 6.4
    make(page, "an owl")
    expect(page.locator("#live")).to_have_text("Late, but ready: an owl")
    expect(page.locator(".tile-note").first).to_have_text("Quality 91 · 100 % · 1.4 s late")
    for _ in range(2):
        page.locator(".tile-open").first.click()
        expect(fact(page, "Quality kept")).to_have_text("91, and 80 was promised")
        expect(fact(page, "Came")).to_have_text("Late by 1.4 s")
        expect(fact(page, "Deadline")).to_have_text("5 s")
        expect(page.locator("#viewer-times li").nth(2)).to_have_text("Drawing 4.5 s")
        page.keyboard.press("ArrowRight")
        expect(fact(page, "Came")).to_have_text("In time, with 4.1 s to spare")
        page.reload()


def test_without_a_deadline_nothing_is_late(page: Page, fake: FakeServer) -> None:
    make(page, "a fox")
    page.locator(".tile-open").click()
    expect(fact(page, "Quality kept")).to_have_text("100, as promised")
    expect(fact(page, "Came")).to_have_count(0)
    expect(fact(page, "Deadline")).to_have_count(0)


def test_several_pictures_tell_each_of_themselves(page: Page, fake: FakeServer) -> None:
    page.locator("#more summary").click()
    page.get_by_label("Pictures", exact=True).fill("2")
    deadline(page).fill("5")
    ask(page, "a fox")
    tiles(page, 2)
    expect(page.locator("#stage-times li")).to_have_count(0)
    page.locator(".tile-open").first.click()
    expect(page.locator("#viewer-times li")).to_have_count(4)


def test_row_says_when_it_should_be_there(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    fake.let_go.clear()
    fake.floors = {100: 40.0, 50: 20.0}
    fake.used = 66
    quality(page).fill("50")
    rises(page).check()
    deadline(page).fill("60")
    for prompt in ("one", "two", "three"):
        ask(page, prompt)
    running = page.locator(".row").filter(has_text="one").locator(".soft")
    expect(running).to_contain_text("Evaluation 3 of 6 at quality 66 · ready in about 20 s")
    expect(running).to_contain_text("ready in about 18 s · deadline in 58 s")
    waiting = page.locator(".row").filter(has_text="three").locator(".soft")
    expect(waiting).to_contain_text("Waiting for its turn · deadline in 5")
    fake.let_go.set()
    tiles(page, 3)
    sent = [float(str(body["deadline"])) for body in fake.bodies]
    assert sent[2] < sent[0] - 1, "a deadline counts from Generate"


def test_deadline_that_passes_in_the_page(page: Page, fake: FakeServer) -> None:
    fake.let_go.clear()
    for prompt in ("one", "two"):
        ask(page, prompt)
    deadline(page).fill("2.5")
    ask(page, "three")
    seen(page, "Waiting for its turn · deadline in")
    seen(page, "past its deadline")
    page.get_by_role("button", name="Cancel: one").click()
    row = page.locator(REFUSED)
    expect(row).to_contain_text("Its deadline passed before it could be sent.")
    assert len(fake.bodies) == 2
    fake.let_go.set()
    tiles(page, 1)
    page.get_by_role("button", name="Try again: three").click()
    tiles(page, 2)
    assert float(str(fake.bodies[2]["deadline"])) > 2.4, "it counts anew"


def test_refused_request_offers_what_would_help(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    deadline(page).fill("0.8")
    ask(page, "a fox")
    row = page.locator(REFUSED)
    # Of what it had when it was asked for, a little is gone.
    said = r"Refused: it would be there in about 2\.0 s, and has 0\.(80|7\d) s\."
    expect(row).to_contain_text(re.compile(said))
    seen(page, "Refused: it would be there")
    expect(page.locator("#queue-heading")).to_have_text("1 request")
    page.get_by_role("button", name="Try a lower quality: a fox").click()
    seen(page, "Sent again with quality 70.")
    tiles(page, 1)
    assert [body.get("quality") for body in fake.bodies] == [None, 70]
    assert fake.bodies[0]["seed"] == fake.bodies[1]["seed"]
    assert float(str(fake.bodies[1]["deadline"])) > 0.7
    rises(page).check()
    quality(page).fill("90")
    ask(page, "an owl")
    page.get_by_role("button", name="Try a lower quality: an owl").click()
    tiles(page, 2)
    assert [fake.bodies[-1].get(name) for name in ("min_quality", "max_quality")] == [70, 100]


def test_refused_request_without_its_deadline(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    deadline(page).fill("0.3")
    ask(page, "a fox")
    page.get_by_role("button", name="Try a lower quality: a fox").click()
    seen(page, "No quality would be in time now.")
    expect(page.locator(REFUSED)).to_be_visible()
    page.get_by_role("button", name="Try without deadline: a fox").click()
    tiles(page, 1)
    assert "deadline" not in fake.bodies[-1]
    quality(page).fill("50")
    ask(page, "an owl")
    expect(page.get_by_role("button", name="Try without deadline: an owl")).to_be_visible()
    expect(page.get_by_role("button", name="Try a lower quality: an owl")).to_be_hidden()


def test_refused_request_is_sent_again_when_the_server_said(page: Page, fake: FakeServer) -> None:
    fake.retry = 3.0
    deadline(page).fill("1.5")
    ask(page, "a fox")
    again = page.get_by_role("button", name="Try again in")
    expect(again).to_have_accessible_name("Try again in 3 s: a fox")
    again.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel: a fox")).to_be_focused()
    seen(page, "Will be sent again in")
    # It keeps nobody else waiting.
    deadline(page).fill("")
    make(page, "an owl")
    fake.floors = {100: 0.5}
    tiles(page, 2)
    assert [body["prompt"] for body in fake.bodies] == ["a fox", "an owl", "a fox"]


def test_refused_request_outlives_the_page(page: Page, fake: FakeServer) -> None:
    deadline(page).fill("1")
    ask(page, "a fox")
    expect(page.locator(REFUSED)).to_be_visible()
    page.reload()
    expect(page.locator(REFUSED)).to_contain_text("Refused: it would be there")
    assert len(fake.bodies) == 1
    expect(page.get_by_role("button", name="Try again: a fox")).to_be_visible()
    page.get_by_role("button", name="Edit: a fox").click()
    expect(deadline(page)).to_have_value("1")
    expect(page.locator("#queue")).to_be_hidden()


def test_refusal_for_the_sake_of_others(page: Page, fake: FakeServer) -> None:
    reason = "a picture that was promised in time would be late"
    error = {"message": reason, "type": "rate_limit_error", "code": "deadline_unreachable"}
    known = {"predicted_seconds": 0.7, "retry_seconds": None}
    fake.faults.append(Fault(429, {**error, **known}))
    ask(page, "a fox")
    expect(page.locator(REFUSED)).to_contain_text(f"Refused: {reason}")
    expect(page.get_by_role("button", name="Try without deadline: a fox")).to_be_hidden()
    page.get_by_role("button", name="Try again: a fox").click()
    tiles(page, 1)


def test_refusal_in_the_middle_of_a_stream(page: Page, fake: FakeServer) -> None:
    error = {"message": "too late", "type": "rate_limit_error", "code": "deadline_unreachable"}
    known = {"predicted_seconds": 9.0, "retry_seconds": 3.0}
    fake.faults.append(Fault(error={**error, **known}, after=0))
    fake.floors = {}
    deadline(page).fill("4")
    ask(page, "a fox")
    expect(page.locator(REFUSED)).to_contain_text("it would be there in about 9.0 s, and has 4.0 s")
    expect(page.get_by_role("button", name="Try again in")).to_be_visible()


def test_full_queue_stays_what_it_was(page: Page, fake: FakeServer) -> None:
    error = {"message": "full", "type": "rate_limit_error", "code": "rate_limit_exceeded"}
    fake.faults.append(Fault(429, error, {"Retry-After": "1"}))
    deadline(page).fill("9")
    ask(page, "a fox")
    seen(page, "The server is busy; it will be sent again soon")
    tiles(page, 1)
    first, second = (float(str(body["deadline"])) for body in fake.bodies)
    assert second < first - 0.9


def test_reuse_takes_deadline_and_floor(calibrated: Page, fake: FakeServer) -> None:
    page = calibrated
    deadline(page).fill("5")
    make(page, "a fox")
    deadline(page).fill("")
    page.locator(".tile-open").click()
    body = page.locator("#viewer-code").inner_text().split("-d '")[1].split("' \\")[0]
    assert json.loads(body)["deadline"] == 5
    page.get_by_role("radio", name="Python", exact=True).check()
    expect(page.locator("#viewer-code")).to_contain_text("deadline=5,")
    page.get_by_role("button", name="Use parameters").click()
    expect(deadline(page)).to_have_value("5")
    levels = {**PARAMETERS, "quality": 90, "min_quality": 70, "max_quality": 90}
    drop(page, picture("PNG", levels))
    seen(page, "Its quality went up to 90 at most; here it may be 100.")
    expect(quality(page)).to_have_value("70")
    expect(rises(page)).to_be_checked()
    expect(deadline(page)).to_have_value("")
    drop(page, picture("PNG", {**PARAMETERS, "min_quality": 65, "max_quality": 65}))
    expect(quality(page)).to_have_value("65")
    expect(rises(page)).not_to_be_checked()
    page.get_by_role("button", name="Undo").click()
    expect(quality(page)).to_have_value("70")
    expect(rises(page)).to_be_checked()


def test_parameters_of_several_levels_come_from_the_picture(
    calibrated: Page, fake: FakeServer
) -> None:
    page = calibrated
    quality(page).fill("70")
    rises(page).check()
    make(page, "a fox")
    told = read_parameters(png(fake.bodies[0]))
    page.locator(".tile-open").click()
    expect(fact(page, "Quality")).to_have_text(str(told["quality"]))
    expect(fact(page, "Quality kept")).to_have_text("70, as promised")


def test_not_calibrated(page: Page, fake: FakeServer) -> None:
    drop(page, picture("PNG", {**PARAMETERS, "min_quality": 70, "max_quality": 100}))
    seen(page, "This model is not calibrated: its quality is 100.")
    expect(quality(page)).to_have_value("100")
    expect(rises(page)).not_to_be_checked()
    expect(rises(page)).to_be_disabled()
