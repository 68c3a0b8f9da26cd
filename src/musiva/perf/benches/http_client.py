"""A client of the images API that asks, checks every answer, and remembers some of the pictures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import io
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from PIL import Image

from musiva.perf.benches.pictures import PROMPTS

__all__ = ["Answer", "Client", "pixels_hash"]

TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """fault: what was wrong, or None. hashes: of the pixels of each picture, if it is to be
    compared.
    """

    body: Mapping[str, object]
    seconds: float
    fault: str | None
    hashes: tuple[str, ...] = ()


class Client:
    """Draws requests of mixed sizes, steps and n; the same index draws the same ones.

    compared: share of answers whose pictures are remembered; of client 0 the first one always is.
    """

    def __init__(
        self, url: str, index: int, sizes: Sequence[str], steps: Sequence[int], compared: float
    ) -> None:
        self._address = urlsplit(url).netloc
        self._draw = random.Random(index)
        self._must_compare = index == 0
        self._sizes, self._steps, self._compared = sizes, steps, compared

    def ask(self) -> Answer:
        """One request, from sending it to the last byte of its answer."""
        draw = self._draw
        body = {
            "prompt": draw.choice(PROMPTS),
            "size": draw.choice(self._sizes),
            "steps": draw.choice(self._steps),
            "n": draw.choice((1, 1, 1, 2)),
            "seed": draw.randrange(1 << 31),
            "guidance_scale": draw.choice((1.0, 3.0, 5.0)),
            "response_format": "b64_json",
        }
        compare = draw.random() < self._compared or self._must_compare
        self._must_compare = False
        start = time.perf_counter()
        try:
            status, content = self._post(json.dumps(body))
        except (OSError, http.client.HTTPException) as error:
            return Answer(body, time.perf_counter() - start, f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - start
        if status != 200:
            return Answer(body, seconds, f"status {status}: {content[:200]!r}")
        try:
            pictures = _decode(content)
        except (ValueError, KeyError, TypeError, OSError, binascii.Error) as error:
            return Answer(body, seconds, f"not decodable: {error}")
        sizes = [f"{p.width}x{p.height}" for p in pictures]
        if sizes != [body["size"]] * int(str(body["n"])):
            return Answer(body, seconds, f"pictures of {sizes}")
        return Answer(body, seconds, None, tuple(map(pixels_hash, pictures)) if compare else ())

    def _post(self, body: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT)
        try:
            connection.request(
                "POST", "/v1/images/generations", body, {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def pixels_hash(picture: Image.Image) -> str:
    return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()


def _decode(content: bytes) -> Sequence[Image.Image]:
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(one["b64_json"])))
        for one in json.loads(content)["data"]
    ]
    for picture in pictures:
        picture.load()
    return pictures
