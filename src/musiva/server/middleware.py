"""What stands around every request: counting it, and asking for the key."""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musiva.server.errors import ApiError, refusal_of, to_response
from musiva.telemetry import Metrics

__all__ = ["CountRequests", "RequireKey"]


class CountRequests:
    """Counts requests by declared route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.http_started()
        try:
            await self.app(scope, receive, observed_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.http_ended(route, status)


class RequireKey:
    """Answers 401 under /v1 unless the key comes as `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("authorization")
        if given is None:
            message = "no API key; send the header Authorization: Bearer KEY"
        else:
            scheme, _, key = given.partition(" ")
            known = secrets.compare_digest(key.strip().encode("latin-1"), self._key)
            if scheme.lower() == "bearer" and known:
                await self.app(scope, receive, send)
                return
            message = "incorrect API key"
        headers = {"WWW-Authenticate": "Bearer"}
        error = ApiError(401, message, code="invalid_api_key", headers=headers)
        await to_response(refusal_of(error))(scope, receive, send)
