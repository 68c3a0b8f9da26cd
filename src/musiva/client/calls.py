"""Every call that the API has, as the two clients share them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import httpx

from musiva import __version__
from musiva.client.answers import EventReader, Reader, WholeReader, json_of, pictures_of
from musiva.client.flow import Call
from musiva.client.options import body_of
from musiva.client.pictures import Event, Picture
from musiva.client.retry import Retry, Timeout
from musiva.core.env import checked_key
from musiva.core.errors import InvalidInput

__all__ = ["LIMITS", "Calls"]

T = TypeVar("T")
MAX_RETRIES = 100
# No bound on connections: a request waits in the server's queue, where it is seen, not here.
LIMITS = httpx.Limits(max_keepalive_connections=20)
# By scheme, since the environment's proxies are named so; None goes straight there.
NO_PROXY: Mapping[str, None] = {"http://": None, "https://": None}
GENERATIONS = "/v1/images/generations"


class Calls:
    """Checks what a client is made with. mounts: how httpx reaches the server, where that is not by
    the environment's proxies. Raises InvalidInput.
    """

    def __init__(
        self, base_url: str, api_key: str | None, timeout: Timeout | float | None, retries: int
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.timeout = Timeout.of(timeout, Timeout())
        whole = isinstance(retries, int) and not isinstance(retries, bool)
        if not whole or not 0 <= retries <= MAX_RETRIES:
            raise InvalidInput("retries", retries, f"a whole number from 0 to {MAX_RETRIES}")
        self.retry = Retry(retries)
        # As in Go's net/http: a proxy has no way to this machine's own addresses.
        self.mounts = NO_PROXY if _is_loopback(httpx.URL(self.base_url).host) else {}
        self.headers = {"User-Agent": f"musiva/{__version__}"}
        if checked_key("api_key", api_key) is not None:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def generate(
        self, prompt: str, options: Mapping[str, object], timeout: Timeout | float | None
    ) -> Call[list[Picture]]:
        body = {**body_of(prompt, options), "response_format": "b64_json"}
        return self._post(body, partial(WholeReader, parse=pictures_of), timeout)

    def stream(
        self,
        prompt: str,
        options: Mapping[str, object],
        previews: int,
        preview_format: str | None,
        progress: bool,
        timeout: Timeout | float | None,
    ) -> Call[Event]:
        body = body_of(prompt, options)
        body |= {"stream": True, "partial_images": previews, "progress": progress}
        if preview_format is not None:
            body["partial_format"] = preview_format
        return self._post(body, partial(EventReader, sent=body), timeout)

    def models(self) -> Call[list[dict[str, object]]]:
        return self._get("/v1/models", _models_of)

    def health(self) -> Call[dict[str, object]]:
        """Not retried: whoever asks wants to know how it is now."""
        return self._get("/healthz", json_of, Retry(0))

    def metrics(self) -> Call[str]:
        return self._get("/metrics", bytes.decode)

    def _post(
        self,
        body: Mapping[str, object],
        reader: Callable[[str], Reader[T]],
        timeout: Timeout | float | None,
    ) -> Call[T]:
        url = self.base_url + GENERATIONS
        return Call(
            method="POST",
            url=url,
            headers={**self.headers, "Content-Type": "application/json"},
            content=json.dumps(body).encode(),
            sent=body,
            reader=partial(reader, url),
            retry=self.retry,
            timeout=Timeout.of(timeout, self.timeout),
        )

    def _get(self, path: str, parse: Callable[[bytes], T], retry: Retry | None = None) -> Call[T]:
        url = self.base_url + path
        return Call(
            method="GET",
            url=url,
            headers=self.headers,
            reader=partial(WholeReader, url, parse),
            retry=retry or self.retry,
            timeout=self.timeout,
        )


def _models_of(content: bytes) -> list[dict[str, object]]:
    data = json_of(content)["data"]
    if not isinstance(data, list) or not all(isinstance(model, dict) for model in data):
        raise TypeError("data is no list of models")
    return data


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_url(base_url: str) -> str:
    """Without a slash at its end."""
    allowed = "an address such as http://127.0.0.1:8400"
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InvalidInput("base_url", base_url, allowed) from error
    if url.userinfo:
        raise InvalidInput("base_url", "(hidden)", f"{allowed}, without a name and password")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise InvalidInput("base_url", base_url, allowed)
    return str(url).rstrip("/")
