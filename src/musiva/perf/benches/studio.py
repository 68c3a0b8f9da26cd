"""Bench `studio`: how soon the first picture and the first paint come, what previews cost, and
whether everybody can use the page.
"""

from __future__ import annotations

import base64
import statistics
import time
from dataclasses import dataclass

from musiva.core.env import Env
from musiva.perf.benches.base import Findings
from musiva.perf.benches.server import running_server
from musiva.perf.benches.studio_previews import compare_previews, stream
from musiva.perf.child import Message, run_child

__all__ = ["KEYS", "Settings", "measure"]

KEYS = ("first_picture_seconds", "preview_overhead", "studio_axe_violations", "studio_load_ms")
PROMPT = "a fox left of a pine tree on grass"
PAGE = "musiva.perf.benches.studio_page"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """starts: of the server, each with its own first picture. loads: of the page with an empty
    cache. pairs: of bursts of `burst` requests, with and without previews.
    """

    model: str = "default"
    starts: int = 5
    loads: int = 15
    pairs: int = 200
    burst: int = 2
    steps: int | None = None
    threads: int = 2
    axe: bool = True


QUICK = Settings(starts=1, loads=5, pairs=5)


def measure(*, quick: bool, settings: Settings | None = None) -> Findings:
    """Default size and steps throughout. An upper bound of the cost of previews needs the long
    run; what needs a browser is null without one, and a row says so.
    """
    settings = settings or (QUICK if quick else Settings())
    findings = Findings()
    seconds: list[float] = []
    for start in range(settings.starts):
        with running_server(settings.model, settings.threads) as (_, url):
            last = start + 1 == settings.starts
            page = _ask_page(url, settings, last=last)
            seconds.append(_first(findings, url, page))
            if last:
                _enter_page(findings, page)
                _enter_previews(findings, url, settings, quick=quick)
    findings.figures["first_picture_seconds"] = statistics.median(seconds)
    row = {"what": "seconds to the first picture of a server", "seconds": seconds}
    findings.rows.append(row)
    return findings


def _ask_page(url: str, settings: Settings, *, last: bool) -> Message:
    axe = str(Env.read().cache_dir / "npm") if last and settings.axe else None
    loads = settings.loads if last else 0
    question = {"url": url, "prompt": PROMPT, "loads": loads, "axe": axe}
    return run_child(PAGE, question, threads=1)


def _first(findings: Findings, url: str, page: Message) -> float:
    """Seconds from the click in the page to the first picture, or from sending its request where
    there is no browser; the same request once more has to give the same file.
    """
    if "missing" in page:
        start = time.perf_counter()
        stream(url, {"prompt": PROMPT, "seed": 0, "partial_images": 0})
        return time.perf_counter() - start
    findings.gate.merge(page["gate"])
    first = page["first"]
    again = stream(url, {"prompt": PROMPT, "seed": int(first["seed"]), "partial_images": 0})
    same = base64.b64decode(again.picture) == base64.b64decode(first["file"])
    findings.gate.check("page_and_api_agree", same, holds=same)
    return first["seconds"]


def _enter_page(findings: Findings, page: Message) -> None:
    if "missing" in page:
        findings.rows.append({"what": "the page in a browser", "missing": page["missing"]})
        return
    if page["loads_ms"]:
        findings.figures["studio_load_ms"] = statistics.median(page["loads_ms"])
        findings.rows.append({"what": "first contentful paint", "milliseconds": page["loads_ms"]})
    if page["axe"] is None:
        return
    if "missing" in page["axe"]:
        findings.rows.append({"what": "axe-core", **page["axe"]})
        return
    rows = page["axe"]["rows"]
    findings.figures["studio_axe_violations"] = float(sum(len(row["violations"]) for row in rows))
    findings.rows += [{"what": "axe-core", **row} for row in rows]


def _enter_previews(findings: Findings, url: str, settings: Settings, *, quick: bool) -> None:
    """The share of throughput lost is 1 - (seconds without / seconds with)."""
    bodies = [
        {"prompt": PROMPT, "seed": seed, **({"steps": settings.steps} if settings.steps else {})}
        for seed in range(settings.burst)
    ]
    found = compare_previews(url, bodies, pairs=settings.pairs, gate=findings.gate)
    if found is None:
        return
    findings.figures["preview_overhead"] = None if quick else 1 - 1 / found.upper
    row = {
        "what": f"seconds of {settings.burst} requests with previews over those without",
        "ratio": found.ratio,
        "upper": found.upper,
        "pairs": found.pairs,
        "seconds_with": found.candidate_seconds,
        "seconds_without": found.baseline_seconds,
    }
    findings.rows.append(row)
