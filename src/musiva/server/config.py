"""What a server is told about itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from musiva.core.env import checked_key
from musiva.core.errors import InvalidInput

__all__ = ["AppConfig"]

ORIGIN = re.compile(r"https?://[^\s/?#@]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """max_body_bytes: of a request. max_file_bytes: of all pictures kept for `response_format`
    "url". max_waiting: image requests at a time, running ones and those that are still read by
    their clients included; one more gets 429. threads: that check prompts and encode pictures.
    api_key: what clients have to send as a bearer token, None for no key. cors_origins: pages from
    elsewhere that may use the API, such as "https://example.org"; "*" is any. body_seconds: that a
    client may take to send a body. stall_seconds: for which it may leave a stream unread.

    Raises InvalidInput for "max_waiting", "api_key" and "cors_origin".
    """

    max_body_bytes: int = 1 << 20
    max_file_bytes: int = 64 << 20
    max_waiting: int = 512
    threads: int = min(4, os.cpu_count() or 1)
    api_key: str | None = field(default=None, repr=False)
    cors_origins: tuple[str, ...] = ()
    body_seconds: float = 30.0
    stall_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.max_waiting < 1:
            raise InvalidInput("max_waiting", self.max_waiting, "a whole number of at least 1")
        checked_key("api_key", self.api_key)
        for origin in self.cors_origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                allowed = '"*", or scheme, host and port such as "https://example.org:8443"'
                raise InvalidInput("cors_origin", origin, allowed)
