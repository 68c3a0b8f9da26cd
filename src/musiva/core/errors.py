"""Every error Musiva raises on purpose, in one tree.

MusivaError
  InvalidInput        a value the user gave is not allowed     400   exit 2
    UnknownModel      no model of that name or path            404   exit 2
  BadCheckpoint       a model directory cannot be used         500   exit 2
  Unavailable         the machine cannot do it now             503   exit 3
  Overloaded          the queue is full                        429   exit 3
  Cancelled           the request was cancelled                499   exit 130
  ExecutionFailed     a request failed while it ran            500   exit 1
    NonFinite         its numbers became NaN or infinite       500   exit 1

Each class carries the HTTP status and the exit code that the server and the command line answer
with.
"""

from __future__ import annotations

__all__ = [
    "BadCheckpoint",
    "Cancelled",
    "ExecutionFailed",
    "InvalidInput",
    "MusivaError",
    "NonFinite",
    "Overloaded",
    "Unavailable",
    "UnknownModel",
]


class MusivaError(Exception):
    """Base of the tree; catch it to catch everything Musiva raises on purpose."""

    http_status = 500
    exit_code = 1


class InvalidInput(MusivaError):
    """A value is not allowed. `field` names it, `allowed` says what would have been.

    The message always reads: field, the value given, what is allowed.
    """

    http_status = 400
    exit_code = 2

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = repr(value)
        if len(shown) > 120:
            shown = f"{shown[:110]}... ({len(shown)} characters)"
        super().__init__(f"{field}: got {shown}; allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.allowed)


class UnknownModel(InvalidInput):
    """No shipped model has this name and no model directory lies at this path."""

    http_status = 404


class BadCheckpoint(MusivaError):
    """A model directory lacks a file or tensor, or one has the wrong shape, or is cut short."""

    exit_code = 2


class Unavailable(MusivaError):
    """Something outside the request is missing: a port in use, a full disk, an absent package."""

    http_status = 503
    exit_code = 3


class Overloaded(MusivaError):
    """The queue is full; try again later."""

    http_status = 429
    exit_code = 3


class Cancelled(MusivaError):
    """The request was cancelled by its owner, or because its owner went away."""

    http_status = 499
    exit_code = 130


class ExecutionFailed(MusivaError):
    """A request failed while it ran; other requests are not affected."""


class NonFinite(ExecutionFailed):
    """A prediction of this request held NaN or infinity."""
