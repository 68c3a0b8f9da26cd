"""What a server is told about itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from musiva.core.env import checked_key
from musiva.core.errors import InvalidInput
from musiva.server.tenants import Access, Tenant

__all__ = ["AppConfig"]

ORIGIN = re.compile(r"https?://[^\s/?#@]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppConfig:
    """max_body_bytes: of a request. max_file_bytes: of all pictures kept for `response_format`
    "url". max_waiting: image requests at a time, running ones, those that are still read by their
    clients, and jobs that have not ended included; one more gets 429. threads: that check prompts
    and encode pictures. api_key: what clients have to send as a bearer token, None for no key.
    tenants: whom fairness is between, and whose keys say who asks. cors_origins: pages from
    elsewhere that may use the API, such as "https://example.org"; "*" is any. body_seconds: that a
    client may take to send a body. stall_seconds: for which it may leave a stream unread.
    job_seconds, max_job_bytes, max_ended_jobs: for how long, in how many bytes of results, and how
    many jobs are kept that have ended; the oldest go first.

    Raises InvalidInput for "max_waiting", "api_key", "tenants" and "cors_origin".
    """

    max_body_bytes: int = 1 << 20
    max_file_bytes: int = 64 << 20
    max_waiting: int = 512
    threads: int = min(4, os.cpu_count() or 1)
    api_key: str | None = field(default=None, repr=False)
    tenants: tuple[Tenant, ...] = ()
    cors_origins: tuple[str, ...] = ()
    body_seconds: float = 30.0
    stall_seconds: float = 60.0
    job_seconds: float = 3600.0
    max_job_bytes: int = 64 << 20
    max_ended_jobs: int = 10_000

    def __post_init__(self) -> None:
        if self.max_waiting < 1:
            raise InvalidInput("max_waiting", self.max_waiting, "a whole number of at least 1")
        checked_key("api_key", self.api_key)
        Access(self.api_key, self.tenants)
        for origin in self.cors_origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                allowed = '"*", or scheme, host and port such as "https://example.org:8443"'
                raise InvalidInput("cors_origin", origin, allowed)

    @property
    def access(self) -> Access:
        """What keys open."""
        return Access(self.api_key, self.tenants)
