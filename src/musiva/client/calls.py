"""Every call that the API has, as the two clients share them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import httpx

from musiva import __version__
from musiva.client.answers import EventReader, Reader, WholeReader, pictures_of
from musiva.client.flow import Call
from musiva.client.job_answers import estimates_of, standing_of, workers_of
from musiva.client.jobs_told import Estimates, Standing, Worker
from musiva.client.options import body_of
from musiva.client.pictures import Event, Picture
from musiva.client.reading import json_of, listed
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
        reader = partial(WholeReader, parse=pictures_of)
        return self.post(GENERATIONS, body, reader, timeout=timeout)

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
        return self.post(GENERATIONS, body, partial(EventReader, sent=body), timeout=timeout)

    def estimates(self, prompt: str, options: Mapping[str, object]) -> Call[Estimates]:
        reader = partial(WholeReader, parse=estimates_of)
        return self.post("/v1/estimates", body_of(prompt, options), reader)

    def standing(self) -> Call[Standing]:
        return self.get("/v1/standing", partial(WholeReader, parse=standing_of))

    def workers(self) -> Call[tuple[Worker, ...]]:
        return self.get("/v1/cluster", partial(WholeReader, parse=workers_of))

    def drain(self, worker: int) -> Call[tuple[Worker, ...]]:
        """Not retried: a second one would end the worker that came in its place."""
        reader = partial(WholeReader, parse=workers_of)
        path, sent = f"/v1/cluster/{worker}/drain", {"worker": worker}
        return self.post(path, None, reader, sent=sent, retry=Retry(0))

    def models(self) -> Call[list[dict[str, object]]]:
        return self.get("/v1/models", partial(WholeReader, parse=_models_of))

    def health(self) -> Call[dict[str, object]]:
        """Not retried: whoever asks wants to know how it is now."""
        return self.get("/healthz", partial(WholeReader, parse=json_of), retry=Retry(0))

    def metrics(self) -> Call[str]:
        return self.get("/metrics", partial(WholeReader, parse=bytes.decode))

    def post(
        self,
        path: str,
        body: Mapping[str, object] | None,
        reader: Callable[[str], Reader[T]],
        *,
        sent: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        retry: Retry | None = None,
        timeout: Timeout | float | None = None,
    ) -> Call[T]:
        """body: None for none. sent: for errors, what is sent beside it. reader: made with the
        address.
        """
        url, content = self.base_url + path, None
        headers = {**self.headers, **(headers or {})}
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        return Call(
            method="POST",
            url=url,
            headers=headers,
            content=content,
            sent={**(body or {}), **(sent or {})},
            reader=partial(reader, url),
            retry=retry or self.retry,
            timeout=Timeout.of(timeout, self.timeout),
        )

    def get(
        self,
        path: str,
        reader: Callable[[str], Reader[T]],
        *,
        sent: Mapping[str, object] | None = None,
        retry: Retry | None = None,
        timeout: Timeout | float | None = None,
    ) -> Call[T]:
        """sent: for errors, what stands in the path. reader: made with the address."""
        url = self.base_url + path
        return Call(
            method="GET",
            url=url,
            headers=self.headers,
            sent=sent or {},
            reader=partial(reader, url),
            retry=retry or self.retry,
            timeout=Timeout.of(timeout, self.timeout),
        )


def _models_of(content: bytes) -> list[dict[str, object]]:
    return [dict(model) for model in listed(json_of(content), "data")]


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
