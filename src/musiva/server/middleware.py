"""What stands around every request: an id, a count, the key, an answer to unforeseen errors."""

from __future__ import annotations

import logging
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musiva.server.errors import ApiError, refusal_of, to_response
from musiva.server.tenants import Access
from musiva.telemetry import Metrics

__all__ = ["REQUEST_ID", "AnswerUnforeseen", "CountRequests", "NameRequests", "RequireKey"]

log = logging.getLogger(__name__)
REQUEST_ID = "X-Request-Id"


class NameRequests:
    """Gives every request an id, `request.state.request_id`, and its answer the header with it.

    What a client sends by that name is not read: an id is one request's, and no text of others
    comes into headers and logs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def named_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self.app(scope, receive, named_send)


class AnswerUnforeseen:
    """Logs what nobody foresaw, and answers 500. Starlette would answer outside of all that stands
    around a request: without an id, and hidden from pages of other origins.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def observed_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, observed_send)
        except Exception as error:
            told = scope["state"]["request_id"], scope["method"], scope["path"]
            log.exception("request %s: %s %r failed", *told)
            if started:
                raise
            await to_response(refusal_of(error))(scope, receive, send)


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
    """Answers 401 under /v1 unless a key comes as `Authorization: Bearer KEY`; whose it is becomes
    `request.state.holder`.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("authorization")
        if given is None:
            message = "no API key; send the header Authorization: Bearer KEY"
        else:
            scheme, _, key = given.partition(" ")
            holder = self._access.holder(key.strip())
            if scheme.lower() == "bearer" and holder is not None:
                scope["state"]["holder"] = holder
                await self.app(scope, receive, send)
                return
            message = "incorrect API key"
        headers = {"WWW-Authenticate": "Bearer"}
        error = ApiError(401, message, code="invalid_api_key", headers=headers)
        await to_response(refusal_of(error))(scope, receive, send)
