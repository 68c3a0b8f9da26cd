"""Every error as OpenAI's clients expect it: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from musiva.core.errors import (
    Cancelled,
    ExecutionFailed,
    InvalidInput,
    MusivaError,
    NonFinite,
    Overloaded,
    Unavailable,
    UnknownModel,
)
from musiva.server.answers import ErrorDetail, RefusedDetail
from musiva.telemetry import Metrics

__all__ = [
    "ApiError",
    "Refusal",
    "add_error_handlers",
    "logged",
    "refusal_of",
    "to_response",
]

log = logging.getLogger(__name__)
# The first class that fits names the code, so subclasses come first.
CODES: tuple[tuple[type[MusivaError], str], ...] = (
    (UnknownModel, "model_not_found"),
    (InvalidInput, "invalid_value"),
    (Overloaded, "rate_limit_exceeded"),
    (Unavailable, "unavailable"),
    (Cancelled, "cancelled"),
    (NonFinite, "non_finite"),
    (ExecutionFailed, "execution_failed"),
    (MusivaError, "internal_error"),
)
CLIENT_CLOSED_REQUEST = 499
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class ApiError(Exception):
    """A request that HTTP or JSON itself forbids, or this server, or how things stand.

    seconds: of a refusal that tells them, those until its pictures would have been there, and those
    after which it should be possible.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as it goes out: by HTTP with its status, or as an event of a stream."""

    status: int
    detail: ErrorDetail
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal_of(error: Exception) -> Refusal:
    """What a client is told of an error. One that nobody foresaw tells nothing of its insides."""
    if isinstance(error, ApiError):
        refusal = _refusal(error.status, str(error), error.code, error.param, error.headers)
        if error.seconds is None:
            return refusal
        told = dict(zip(("predicted_seconds", "retry_seconds"), error.seconds, strict=True))
        return replace(refusal, detail=RefusedDetail(**refusal.detail.model_dump(), **told))
    if isinstance(error, MusivaError):
        code = next(code for kind, code in CODES if isinstance(error, kind))
        param = error.field if isinstance(error, InvalidInput) else None
        return _refusal(error.http_status, str(error), code, param)
    return _refusal(500, "an unexpected error; the server's log has it", "internal_error")


def logged(request_id: str, error: Exception) -> Refusal:
    """What a client is told of an error that ends a request after it was admitted; the log has it
    too, if the client is not to blame.
    """
    if not isinstance(error, MusivaError | ApiError):
        log.error("request %s failed", request_id, exc_info=error)
    elif isinstance(error, MusivaError) and error.http_status == 500:
        log.error("request %s failed: %s", request_id, error)
    return refusal_of(error)


def to_response(refusal: Refusal) -> JSONResponse:
    content = {"error": refusal.detail.model_dump()}
    return JSONResponse(content, refusal.status, dict(refusal.headers))


def add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """For errors that are raised on purpose; `AnswerUnforeseen` has the others."""

    async def on_leaving(_: Request, __: Exception) -> Response:
        # Nobody reads this answer; its status is for the metrics.
        metrics.cancelled()
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_exception_handler(ClientDisconnect, on_leaving)
    app.add_exception_handler(Cancelled, on_leaving)
    app.add_exception_handler(ApiError, _on_error)
    app.add_exception_handler(MusivaError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    refusal = refusal_of(error)
    if isinstance(error, MusivaError) and refusal.status == 500:
        told = request.state.request_id, request.method, request.url.path, error
        log.error("request %s: %s %s failed: %s", *told)
    return to_response(refusal)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, dict(error.headers or {})
    message = f"{request.method} {request.url.path}: {error.detail}"
    if status == 405 and "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
        message += f"; allowed: {headers['Allow']}"
    code = HTTP_CODES.get(status, "http_error")
    return to_response(_refusal(status, message, code, headers=headers))


def _refusal(
    status: int,
    message: str,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind = "rate_limit_error"
    detail = ErrorDetail(message=message, type=kind, param=param, code=code)
    return Refusal(status, detail, headers or {})
