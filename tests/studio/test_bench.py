"""Bench `studio` and its parts, at tiny settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from musiva.core.errors import ExecutionFailed
from musiva.engine import Engine
from musiva.perf.benches import studio, studio_page, studio_previews
from musiva.perf.benches.studio_browser import open_studio, why_not
from musiva.perf.benches.studio_views import views
from musiva.perf.report import Gate
from musiva.studio.assets import PAGE
from musiva.telemetry import Metrics
from tests.server.live import live_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TINY = {"starts": 1, "loads": 1, "pairs": 1, "steps": 40, "threads": 1, "axe": False}


# Of so small a model a busy machine sends few previews in time.
@pytest.fixture
def few_previews_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_previews, "ENOUGH", 0.1)


@pytest.mark.matrix
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.usefixtures("few_previews_suffice")
def test_the_whole_bench(tiny_model: Path) -> None:
    settings = studio.Settings(model=str(tiny_model), **TINY)  # type: ignore[arg-type]
    found = studio.measure(quick=False, settings=settings)
    assert found.gate.ok, found.gate.as_json()
    assert set(found.figures) == set(studio.KEYS) - {"studio_axe_violations"}
    assert all(value is not None for value in found.figures.values())
    by_what = {str(row["what"]): row for row in found.rows}
    assert by_what["first contentful paint"]["milliseconds"]
    [pairs] = [row for what, row in by_what.items() if "previews" in what]
    assert pairs["pairs"] == 1


@pytest.mark.usefixtures("few_previews_suffice")
def test_without_a_browser_the_figures_of_the_page_are_null(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    with (
        Engine.load(tiny_model, device="cpu", observe=metrics.observe) as engine,
        live_server(engine, metrics) as address,
    ):

        @contextmanager
        def running_server(model: str, threads: int) -> Iterator[tuple[None, str]]:
            yield None, "http://{}:{}".format(*address)

        missing = {"missing": "there is no Chromium"}
        monkeypatch.setattr(studio, "running_server", running_server)
        monkeypatch.setattr(studio, "run_child", lambda *a, **k: missing)
        found = studio.measure(quick=True, settings=studio.Settings(**TINY))  # type: ignore[arg-type]
    assert found.gate.ok
    assert found.figures.keys() == {"first_picture_seconds", "preview_overhead"}
    assert found.figures["preview_overhead"] is None
    assert {"what": "the page in a browser", **missing} in found.rows


def test_a_browser_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "there is no Chromium" in studio_page.answer({"url": ""})["missing"]


@pytest.mark.matrix
def test_all_views_are_reached(browser: Browser, tiny_model: Path) -> None:
    metrics = Metrics()
    with (
        Engine.load(tiny_model, device="cpu", observe=metrics.observe) as engine,
        live_server(engine, metrics) as address,
        open_studio(browser, "http://{}:{}".format(*address)) as page,
    ):
        assert len(list(views(page))) == 9


def test_previews_are_counted_and_answers_checked(tiny_model: Path) -> None:
    metrics = Metrics()
    with (
        Engine.load(tiny_model, device="cpu", observe=metrics.observe) as engine,
        live_server(engine, metrics) as address,
    ):
        url, gate = "http://{}:{}".format(*address), Gate()
        few = {"prompt": "a fox", "seed": 1, "steps": 4}  # at most 3 previews
        assert studio_previews.compare_previews(url, [few], pairs=1, gate=gate) is None
        assert gate.checks["previews_leave_the_picture_alone"] is True
        assert 0 <= float(str(gate.checks["previews_a_picture"])) <= 3
        with pytest.raises(ExecutionFailed, match="status 400"):
            studio_previews.stream(url, {**few, "steps": 0})


def test_the_page_asks_for_as_many_previews() -> None:
    text = (PAGE / "api.js").read_text(encoding="utf-8")
    assert re.findall(r"PREVIEWS = (\d+)", text) == [str(studio_previews.PREVIEWS)]
