"""The blocking client."""

from __future__ import annotations

import os
from typing import BinaryIO, Unpack

import httpx

from musiva.client.calls import Calls
from musiva.client.jobs import Jobs
from musiva.client.jobs_told import Estimates, Standing, Worker
from musiva.client.options import Options, picture_call
from musiva.client.pictures import Event, Picture
from musiva.client.retry import Timeout
from musiva.client.wire import Stream, Wire

__all__ = ["Client"]


class Client:
    """A Musiva server, without torch. Thread-safe; close it, or use it as a context.

        with Client() as client:
            client.generate("a fox", size=(96, 96), seed=1)[0].save("fox.png")

    api_key: sent as a bearer token. timeout: a `Timeout`, or the seconds to wait for an answer.
    retries: how often a request is sent again after a connection that was refused or broke, or an
    answer 429 or 503. transport: what carries the requests, for tests. Raises InvalidInput.

    Every call raises what an engine in this process would (`musiva.errors`): InvalidInput and
    UnknownModel with the field, its value and what is allowed, Overloaded with the seconds after
    which to come back, Unavailable also for a server that cannot be reached or breaks off,
    ExecutionFailed; `error.answer` has the server's words. jobs: requests that outlive their
    connection.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8400",
        *,
        api_key: str | None = None,
        timeout: Timeout | float | None = None,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._calls = Calls(base_url, api_key, timeout, retries)
        self._wire = Wire(self._calls, transport)
        self.jobs = Jobs(self._calls, self._wire)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back all connections. May be repeated."""
        self._wire.close()

    def generate(
        self, prompt: str, *, timeout: Timeout | float | None = None, **options: Unpack[Options]
    ) -> list[Picture]:
        """Pictures of a prompt, `num_images` of them."""
        return self._wire.one(self._calls.generate(prompt, options, timeout))

    def like(
        self,
        file: str | os.PathLike[str] | bytes | BinaryIO,
        *,
        prompt: str | None = None,
        timeout: Timeout | float | None = None,
        **overrides: Unpack[Options],
    ) -> list[Picture]:
        """The picture in a file that Musiva made once more, but for what is said; an override of
        None is the model's own choice, and for the seed a new one. Raises InvalidInput for a file
        without parameters.
        """
        wanted, options = picture_call(file, prompt, overrides)
        return self.generate(wanted, timeout=timeout, **options)

    def stream(
        self,
        prompt: str,
        *,
        previews: int = 0,
        preview_format: str | None = None,
        progress: bool = True,
        timeout: Timeout | float | None = None,
        **options: Unpack[Options],
    ) -> Stream[Event]:
        """Events of a request as they come; it is sent when the first one is asked for.

        previews: how many each picture sends, 0 to 100. preview_format: "png", "jpeg" or "webp";
        None, that of the picture.
        """
        call = self._calls.stream(prompt, options, previews, preview_format, progress, timeout)
        return Stream(self._wire.run(call))

    def estimates(self, prompt: str, **options: Unpack[Options]) -> Estimates:
        """What a request would get that came now, at each of its qualities; nothing is made."""
        return self._wire.one(self._calls.estimates(prompt, options))

    def standing(self) -> Standing:
        """How busy the server is."""
        return self._wire.one(self._calls.standing())

    def workers(self) -> tuple[Worker, ...]:
        """The workers of the server, in order; none where it makes pictures itself."""
        return self._wire.one(self._calls.workers())

    def drain(self, worker: int) -> tuple[Worker, ...]:
        """Let what a worker has go on elsewhere, and end it; a new one takes its place."""
        return self._wire.one(self._calls.drain(worker))

    def models(self) -> list[dict[str, object]]:
        """The models with their defaults and limits."""
        return self._wire.one(self._calls.models())

    def health(self) -> dict[str, object]:
        """What the server says of itself now. Raises Unavailable when it is not well."""
        return self._wire.one(self._calls.health())

    def metrics(self) -> str:
        """Figures in the text format of Prometheus."""
        return self._wire.one(self._calls.metrics())
