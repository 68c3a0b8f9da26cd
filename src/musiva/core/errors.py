"""Every error Musiva raises on purpose, in one tree.

MusivaError
  InvalidInput        a value the user gave is not allowed     400   exit 2
    UnknownModel      no model of that name or path            404   exit 2
  BadCheckpoint       a model directory cannot be used         500   exit 2
    CannotCapture     no program can be made of a model class  500   exit 2
  Unavailable         the machine cannot do it now             503   exit 3
    OverBudget        it needs more bytes than a budget has    503   exit 3
    RankLost          one of several on one thing is gone      503   exit 3
  Overloaded          no room, or a deadline cannot be kept    429   exit 3
  Cancelled           the request was cancelled                499   exit 130
  ExecutionFailed     a request failed while it ran            500   exit 1
    NonFinite         its numbers became NaN or infinite       500   exit 1

Each class carries the HTTP status and the exit code that the server and the command line answer
with. One that came through `musiva.client` has what the server said as its `answer`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Answer",
    "BadCheckpoint",
    "Cancelled",
    "CannotCapture",
    "ExecutionFailed",
    "InvalidInput",
    "MusivaError",
    "NonFinite",
    "OverBudget",
    "Overloaded",
    "RankLost",
    "Unavailable",
    "UnknownModel",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said of a failure, in OpenAI's words.

    status: of HTTP; 200 for one that a stream told after it had begun. param: the field of the body
    that it is about.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None


class MusivaError(Exception):
    """Base of the tree; catch it to catch everything Musiva raises on purpose.

    answer: what a server said, or None for what went wrong in this process.
    """

    http_status = 500
    exit_code = 1
    answer: Answer | None = None


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

    def __reduce__(self) -> tuple[type, tuple[str, object, str], dict[str, object]]:
        return type(self), (self.field, self.value, self.allowed), self.__dict__


class UnknownModel(InvalidInput):
    """No shipped model has this name and no model directory lies at this path."""

    http_status = 404


class BadCheckpoint(MusivaError):
    """A model directory lacks a file or tensor, or one has the wrong shape, or is cut short."""

    exit_code = 2


class CannotCapture(BadCheckpoint):
    """Of a model class no program can be made; the message says why."""


class Unavailable(MusivaError):
    """Something outside the request is missing: a port in use, a full disk, an absent package."""

    http_status = 503
    exit_code = 3


class OverBudget(Unavailable):
    """Something needs more bytes than its budget has, even with nothing else in it."""


class RankLost(Unavailable):
    """Of those that work on one thing together one is gone, or does not answer: nobody of them can
    go on.
    """


class Overloaded(MusivaError):
    """Not now; try again later. reason: "full", "deadline" that cannot be kept, or "share" that the
    tenant has had. retry: seconds after which it should be possible, None where nobody knows.
    finish: seconds after which the pictures would have been there.
    """

    http_status = 429
    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        reason: str = "full",
        retry: float | None = None,
        finish: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry = retry
        self.finish = finish


class Cancelled(MusivaError):
    """The request was cancelled by its owner, or because its owner went away."""

    http_status = 499
    exit_code = 130


class ExecutionFailed(MusivaError):
    """A request failed while it ran; other requests are not affected."""


class NonFinite(ExecutionFailed):
    """A prediction of this request held NaN or infinity."""
