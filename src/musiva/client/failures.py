"""A server's error answers as the errors that an engine in this process would raise."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from musiva.client.options import PUBLIC
from musiva.core.errors import (
    Answer,
    Cancelled,
    ExecutionFailed,
    InvalidInput,
    MusivaError,
    NonFinite,
    Overloaded,
    Unavailable,
    UnknownModel,
)

__all__ = ["failure_of", "is_final", "unexpected"]

CODES: Mapping[str, type[MusivaError]] = {
    "cancelled": Cancelled,
    "deadline_unreachable": Overloaded,
    "execution_failed": ExecutionFailed,
    "job_cancelled": Cancelled,
    "job_failed": ExecutionFailed,
    "model_not_found": UnknownModel,
    "non_finite": NonFinite,
    "not_ready": Unavailable,
    "rate_limit_exceeded": Overloaded,
    "unavailable": Unavailable,
}
STATUSES: Mapping[int, type[MusivaError]] = {
    408: Unavailable,
    429: Overloaded,
    499: Cancelled,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
# Of a request that would fail again whenever it came: its deadline is too near.
FINAL = "deadline_unreachable"
KEY_REFUSED = (401, 403)
NOT_THERE = (404, 405)
NAMES = {**PUBLIC, "Idempotency-Key": "idempotency_key"}
# How InvalidInput words itself on the server.
WORDING = re.compile(r"([\w.\[\]-]+): got (.*); allowed: (.*)", re.DOTALL)
SHOWN = 300


def failure_of(
    status: int,
    content: bytes,
    *,
    url: str,
    sent: Mapping[str, object] | None = None,
    retry: float | None = None,
) -> MusivaError:
    """The error for an answer that is not the one hoped for; its `answer` has what the server said.

    status: of the answer; that of an event of a stream is 200. sent: the body that it answers.
    retry: seconds after which to come back, as its header says.
    """
    detail = _detail(content)
    answer = _read(status, content, detail)
    error = _classified(answer, url, sent or {})
    if isinstance(error, Overloaded):
        told = _seconds(detail, "retry_seconds")
        error.retry = retry if told is None else told
        error.finish = _seconds(detail, "predicted_seconds")
        # Of a full queue nobody knows when it would have been done.
        known = "full" if error.finish is None else "share"
        error.reason = "deadline" if answer.code == FINAL else known
    error.answer = answer
    return error


def is_final(error: MusivaError) -> bool:
    """Whether a refusal is one that no later attempt would change."""
    return error.answer is not None and error.answer.code == FINAL


def unexpected(url: str, reason: object) -> Unavailable:
    """For an answer that a Musiva server does not give."""
    return Unavailable(f"{url}: not the answer of a Musiva server: {reason}")


def _detail(content: bytes) -> Mapping[str, object]:
    """What stands in "error"; nothing of what is not in our shape."""
    try:
        error = json.loads(content)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}


def _read(status: int, content: bytes, detail: Mapping[str, object]) -> Answer:
    message, code, param = (detail.get(name) for name in ("message", "code", "param"))
    if not isinstance(message, str):
        # Not our shape: a proxy's page, most likely. Its beginning tells more than nothing.
        text = " ".join(content[:SHOWN].decode("utf-8", errors="replace").split())
        message, code, param = text or "no reason given", None, None
    return Answer(
        status=status,
        message=message,
        code=code if isinstance(code, str) else None,
        param=param if isinstance(param, str) else None,
    )


def _seconds(detail: Mapping[str, object], name: str) -> float | None:
    value = detail.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _classified(answer: Answer, url: str, sent: Mapping[str, object]) -> MusivaError:
    status, message = answer.status, answer.message
    kind = CODES.get(answer.code or "") or STATUSES.get(status)
    if kind is None and status in KEY_REFUSED:
        return InvalidInput("api_key", "(hidden)", f"a key that {url} takes: {message}")
    # What blames a parameter knows the path.
    elsewhere = status in NOT_THERE and answer.param is None
    if kind is None and (elsewhere or 300 <= status < 400):
        allowed = f"the address of a Musiva server; this one answered {status}: {message}"
        return InvalidInput("base_url", url, allowed)
    if kind is None and (400 <= status < 500 or _blames_a_value(answer)):
        kind = InvalidInput
    if kind is None:
        kind = ExecutionFailed
    if not issubclass(kind, InvalidInput):
        return kind(f"{url}: {message}")
    return _invalid(kind, answer, sent)


def _blames_a_value(answer: Answer) -> bool:
    return answer.status == 200 and (answer.code or "").startswith(("invalid_", "unknown_"))


def _invalid(kind: type[InvalidInput], answer: Answer, sent: Mapping[str, object]) -> InvalidInput:
    worded = WORDING.fullmatch(answer.message)
    wire = answer.param or (worded[1] if worded else "request")
    field = NAMES.get(wire, wire)
    if worded is None:
        allowed = f"what this server takes; it answered: {answer.message}"
        return kind(field, sent.get(wire), allowed)
    return kind(field, sent.get(wire, worded[2]), worded[3])
