"""Pictures of the studio for the documentation; a server with the default model, or `--model`,
makes what they show.

    python -m musiva.perf.benches.studio_shots docs/pictures
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musiva.perf.benches.server import running_server
from musiva.perf.benches.studio_browser import DESK, PHONE, open_browser, open_studio
from musiva.perf.benches.studio_views import ask, make

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["main", "take"]

PROMPTS = (
    "a slice of pizza on a yellow background",
    "a penguin left of a snowman on snow",
    "smiling face with sunglasses",
    "an octopus on a blue background",
    "a red apple on a wooden table",
    "a cactus on sand",
    "a whale above a crab on water",
    "a rocket right of a full moon on a starry night sky",
    "a fox left of a pine tree on snow",
)
THREADS = 2
# Long enough to be met in the middle.
MANY_STEPS = 400
SHARE = 0.6


def take(url: str, folder: Path) -> list[Path]:
    """studio-light, -dark, -compare and -phone as PNG files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_browser() as browser:
        return [
            *_desk(browser, url, folder),
            *_running(browser, url, folder),
            *_phone(browser, url, folder),
        ]


def _fill(page: Page, prompts: Sequence[str]) -> None:
    """The gallery, the same at each run."""
    for seed, prompt in enumerate(prompts):
        page.locator("#seed").fill(str(seed))
        make(page, prompt)
    page.locator("#seed-lock").click()


def _desk(browser: Browser, url: str, folder: Path) -> list[Path]:
    with open_studio(browser, url, color_scheme="light", **DESK) as page:
        _fill(page, PROMPTS)
        page.locator("#prompt").blur()
        light = _shot(page, folder / "studio-light.png")
        page.locator("#steps").fill("8")
        page.locator("#seed").fill(str(len(PROMPTS) - 1))
        make(page, PROMPTS[-1])
        for index in range(2):
            page.locator(".tile").nth(index).hover()
            page.locator(".tile-choose").nth(index).click()
        page.locator("#compare-start").click()
        return [light, _shot(page, folder / "studio-compare.png")]


def _running(browser: Browser, url: str, folder: Path) -> list[Path]:
    with open_studio(browser, url, color_scheme="dark", **DESK) as page:
        _fill(page, PROMPTS[:4])
        page.locator("#seed").fill("8")
        for prompt in PROMPTS[-1], PROMPTS[-2]:
            ask(page, prompt, steps=MANY_STEPS)
        bar = page.locator("progress").first
        while float(bar.get_attribute("value") or 0) < SHARE:
            page.wait_for_timeout(100)
        dark = _shot(page, folder / "studio-dark.png")
        page.locator("#cancel-all").click()
        return [dark]


def _phone(browser: Browser, url: str, folder: Path) -> list[Path]:
    with open_studio(browser, url, color_scheme="light", device_scale_factor=1.25, **PHONE) as page:
        _fill(page, PROMPTS[-6:])
        page.evaluate("() => document.querySelector('.work').scrollIntoView()")
        return [_shot(page, folder / "studio-phone.png")]


def _shot(page: Page, path: Path) -> Path:
    page.screenshot(path=path, animations="disabled")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="default")
    arguments = parser.parse_args()
    with running_server(arguments.model, THREADS) as (_, url):
        for path in take(url, arguments.folder):
            print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
