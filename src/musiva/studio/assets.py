"""The page and its files as routes, with their types, tags and security headers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

__all__ = ["routes"]

PAGE = Path(__file__).with_name("page")
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Everything comes from this server, and no text of a user can become a script or a style.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page; `tag` is its entity tag, quotes included."""

    content: bytes
    media_type: str
    tag: str


def routes() -> list[BaseRoute]:
    """`/` and `/studio/NAME`, for GET and HEAD. The files are read once, when this is called.

    Browsers keep the files but ask each time whether they have changed (`no-cache` and an entity
    tag), so that a page never runs with the modules of another version.
    """
    assets = {path.name: _read(path) for path in sorted(PAGE.iterdir()) if path.suffix in TYPES}

    async def index(request: Request) -> Response:
        return _answer(request, assets[INDEX])

    async def asset(request: Request) -> Response:
        found = assets.get(request.path_params["name"])
        if found is None:
            return Response("no such file", 404, media_type="text/plain", headers=SECURITY)
        return _answer(request, found)

    return [
        Route("/", index, include_in_schema=False),
        Route("/studio/{name}", asset, include_in_schema=False),
    ]


def _read(path: Path) -> Asset:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:32]
    return Asset(content, TYPES[path.suffix], f'"{digest}"')


def _answer(request: Request, asset: Asset) -> Response:
    headers = {**SECURITY, "ETag": asset.tag, "Cache-Control": "no-cache"}
    known = request.headers.get("If-None-Match", "")
    if asset.tag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers={**headers, "Content-Type": asset.media_type})
