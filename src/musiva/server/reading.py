"""Reading what clients send, within limits of bytes and time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import Request
from starlette.requests import ClientDisconnect

from musiva.core.errors import InvalidInput
from musiva.server.config import AppConfig
from musiva.server.errors import ApiError

__all__ = ["MAX_REFUSED_BYTES", "check_media_type", "read_body", "skip_body"]

# So many times the limit is read of a body that is too long, so that its sender sees the answer.
READ_ON = 16
# Of a request whose body does not matter: so much is read, so that its sender sees the answer.
MAX_REFUSED_BYTES = 64 << 20


def check_media_type(http: Request) -> None:
    """Raises ApiError (415). A browser asks before it sends JSON to another origin, and so a page
    from elsewhere cannot make this machine draw.
    """
    given = http.headers.get("content-type")
    if given is None or given.partition(";")[0].strip().lower() != "application/json":
        error = InvalidInput("Content-Type", given, "application/json")
        raise ApiError(415, str(error), code="unsupported_media_type")


async def read_body(http: Request, config: AppConfig) -> bytes:
    """Raises ApiError (408, 413), and ClientDisconnect."""
    limit, chunks, size = config.max_body_bytes, [], 0
    try:
        async with asyncio.timeout(config.body_seconds):
            async for chunk in http.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > READ_ON * limit:
                    break
    except TimeoutError:
        message = f"body: not complete after {config.body_seconds:g} s"
        headers = {"Connection": "close"}
        raise ApiError(408, message, code="request_timeout", headers=headers) from None
    if size > limit:
        message = f"body: got more than {limit} bytes; allowed: at most {limit} bytes"
        raise ApiError(413, message, code="body_too_large")
    return b"".join(chunks)


async def skip_body(http: Request, seconds: float) -> None:
    """Read a body, up to a limit of bytes and of time, and keep nothing of it."""
    size = 0
    with suppress(ClientDisconnect, TimeoutError):
        async with asyncio.timeout(seconds):
            async for chunk in http.stream():
                size += len(chunk)
                if size > MAX_REFUSED_BYTES:
                    return
