"""Child process: a browser on the studio of a running server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from musiva.core.errors import Unavailable
from musiva.perf.benches.studio_axe import check, fetch_axe
from musiva.perf.benches.studio_browser import DESK, PHONE, open_browser, open_studio, why_not
from musiva.perf.benches.studio_views import views
from musiva.perf.child import Message, serve_child
from musiva.perf.report import Gate

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["answer"]

PAINT = """() => new Promise((resolve) => {
  new PerformanceObserver((list) => {
    const paint = list.getEntriesByName("first-contentful-paint")[0];
    if (paint) resolve(paint.startTime);
  }).observe({ type: "paint", buffered: true });
})"""
# From the click to the moment when the finished picture can be painted.
FIRST = """async (prompt) => {
  document.getElementById("prompt").value = prompt;
  const start = performance.now();
  document.getElementById("generate").click();
  const image = await new Promise((resolve) => {
    const find = () => document.querySelector(".tile img");
    new MutationObserver((_, observer) => {
      if (find()) observer.disconnect(), resolve(find());
    }).observe(document.getElementById("gallery"), { childList: true, subtree: true });
  });
  image.loading = "eager";
  await image.decode();
  const seconds = (performance.now() - start) / 1000;
  const { PictureStore } = await import("/studio/pictures.js");
  const store = new PictureStore(() => {});
  await store.open();
  const file = btoa(String.fromCharCode(...store.all()[0].bytes));
  return { seconds, seed: document.getElementById("seed").value, file };
}"""
MIN_PASSES = 10
SCHEMES = ("light", "dark")


def answer(question: Message) -> Message:
    """question: url, prompt, number of cold loads, and where axe-core is kept, or null to leave the
    check out.

    The first picture is made before anything else. Gives "missing" instead of all figures where
    there is no browser.
    """
    missing = why_not()
    if missing:
        return {"missing": missing}
    gate, url = Gate(), str(question["url"])
    with open_browser() as browser:
        with open_studio(browser, url, **DESK) as page:
            found = page.evaluate(FIRST, question["prompt"])
        file = base64.b64decode(found.pop("file"))
        gate.check("first_picture_bytes", len(file), holds=file.startswith(b"\x89PNG"))
        loads = [_paint(browser, url) for _ in range(question["loads"])]
        rows = _check(browser, url, Path(question["axe"]), gate) if question["axe"] else None
    return {
        "gate": gate.as_json(),
        "first": {**found, "file": base64.b64encode(file).decode()},
        "loads_ms": loads,
        "axe": rows,
    }


def _paint(browser: Browser, url: str) -> float:
    """Milliseconds from the start of the navigation to the first paint of content, with an empty
    cache.
    """
    with open_studio(browser, url, **DESK) as page:
        return page.evaluate(PAINT)


def _check(browser: Browser, url: str, directory: Path, gate: Gate) -> Message:
    """What axe-core finds in all views; "missing" where it cannot be had."""
    try:
        axe = fetch_axe(directory)
    except Unavailable as error:
        return {"missing": str(error)}
    rows = []
    for device, options in (("desk", DESK), ("phone", PHONE)):
        for scheme in SCHEMES:
            with open_studio(browser, url, color_scheme=scheme, **options) as page:
                for view in views(page):
                    found = check(page, axe)
                    where = f"{view}, {device}, {scheme}"
                    # A check that finds nothing to look at would find no fault either.
                    if found["passes"] < MIN_PASSES:
                        gate.check(f"axe: {where}", found["passes"], holds=False)
                    rows.append({"view": where, **found})
    gate.check("views", len(rows), holds=True)
    return {"rows": rows}


if __name__ == "__main__":
    serve_child(answer)
