"""What the studio's previews cost a server that has always something to do."""

from __future__ import annotations

import http.client
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from musiva.core.errors import ExecutionFailed
from musiva.perf.measure import Comparison, compare
from musiva.perf.report import Gate

__all__ = ["PREVIEWS", "Streamed", "compare_previews", "stream"]

# What the page asks for.
PREVIEWS = 6
PREVIEW_FORMAT = "jpeg"
ENOUGH = 0.9
TIMEOUT = 600.0
PARTIAL = b"event: image_generation.partial_image\n"
COMPLETED = re.compile(rb'event: image_generation\.completed\ndata: .*?"b64_json": ?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Streamed:
    """picture: base64 of its file. previews: how many came before it."""

    picture: bytes
    previews: int


def compare_previews(
    url: str, bodies: Sequence[Mapping[str, object]], *, pairs: int, gate: Gate
) -> Comparison | None:
    """Seconds of a burst of requests with the studio's previews over those without; None when the
    gate fails.

    Everything that a preview costs is in it: the projection, encoding it, sending it, and this
    client's reading it on the same cores. The two sides differ in nothing else: both stream, both
    ask for progress. The engine is busy from the first evaluation of a burst to its last.
    """
    sent: list[int] = []
    with ThreadPoolExecutor(len(bodies)) as pool:

        def burst(previews: int) -> list[Streamed]:
            shown = {"partial_images": previews, "partial_format": PREVIEW_FORMAT}
            asked = [{**body, **shown} for body in bodies]
            found = list(pool.map(partial(stream, url), asked))
            if previews:
                sent.extend(one.previews for one in found)
            return found

        plain, shown = burst(0), burst(PREVIEWS)
        same = [one.picture for one in plain] == [one.picture for one in shown]
        gate.check("previews_leave_the_picture_alone", same, holds=same)
        without = sum(one.previews for one in plain)
        gate.check("previews_without", without, holds=not without)
        if not gate.ok:
            return None
        comparison = compare(lambda: burst(PREVIEWS), lambda: burst(0), pairs=pairs)
    # A server drops those that are old before they are sent, which must not make them cheap.
    mean = statistics.fmean(sent)
    enough = gate.check("previews_a_picture", mean, holds=mean >= ENOUGH * PREVIEWS)
    return comparison if enough else None


def stream(url: str, body: Mapping[str, object]) -> Streamed:
    """Ask for one picture as the page does. Raises ExecutionFailed for any other answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
    text = json.dumps({**body, "stream": True, "progress": True})
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/images/generations", text, headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    found = COMPLETED.search(content)
    if response.status != 200 or found is None:
        raise ExecutionFailed(f"status {response.status}: {content[-300:]!r}")
    return Streamed(found[1], content.count(PARTIAL))
