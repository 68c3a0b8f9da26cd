"""Every error as OpenAI's clients expect it: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

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

__all__ = ["ApiError", "add_error_handlers"]

log = logging.getLogger(__name__)
RETRY_AFTER_SECONDS = 5
# The first class that fits names the code, so subclasses come first.
CODES: tuple[tuple[type[MusivaError], str], ...] = (
    (UnknownModel, "model_not_found"),
    (InvalidInput, "invalid_value"),
    (Overloaded, "overloaded"),
    (Unavailable, "unavailable"),
    (Cancelled, "cancelled"),
    (NonFinite, "non_finite"),
    (ExecutionFailed, "execution_failed"),
    (MusivaError, "internal_error"),
)
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class ApiError(Exception):
    """A request that HTTP or JSON itself forbids, before the engine is asked."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(MusivaError, _on_musiva_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


def _answer(
    status: int,
    message: str,
    code: str,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind = "rate_limit_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers)


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return _answer(error.status, str(error), error.code, error.param)


async def _on_musiva_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MusivaError)
    code = next(code for kind, code in CODES if isinstance(error, kind))
    param = error.field if isinstance(error, InvalidInput) else None
    busy = isinstance(error, Overloaded)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if busy else None
    if error.http_status == 500:
        log.error("%s %s failed: %s", request.method, request.url.path, error)
    return _answer(error.http_status, str(error), code, param, headers)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, dict(error.headers or {})
    message = f"{request.method} {request.url.path}: {error.detail}"
    if status == 405 and "Allow" in headers:
        message += f"; allowed: {headers['Allow']}"
    return _answer(status, message, HTTP_CODES.get(status, "http_error"), headers=headers)


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the error again after this answer, and the server under it logs it.
    return _answer(500, "an unexpected error; the server's log has it", "internal_error")
