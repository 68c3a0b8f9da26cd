"""What a fleet and its workers say to each other, and over what."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from musiva.comm import LinkFigures, Meter
from musiva.core.types import Request, StepPlan, StepResult
from musiva.engine.identity import Identity
from musiva.store import CacheFigures, Figures, Holder

__all__ = [
    "Answer",
    "Ask",
    "Cancel",
    "Channel",
    "Close",
    "Failed",
    "Packed",
    "Ping",
    "PipeChannel",
    "Pong",
    "Ready",
    "Stepped",
    "Submit",
]

# Record and checkpoint of a sample, as a journal has them.
Packed = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Submit:
    """age: seconds since the request came. resumed: of one that was admitted before, the pictures
    that are not done.
    """

    request: Request
    latents: Sequence[np.ndarray] | None
    age: float
    resumed: Mapping[int, Packed | None] | None


@dataclass(frozen=True, slots=True)
class Cancel:
    request: str


@dataclass(frozen=True, slots=True)
class Ask:
    """How an engine stands, or what a request would get that came now."""

    number: int
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Whether it is alive."""


@dataclass(frozen=True, slots=True)
class Close:
    """Cancel all, and end."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Its model is loaded. host: the machine that it is on. holder: of published pages, and root:
    of their names; None without a cache.
    """

    host: str
    identity: Identity
    holder: Holder | None = None
    root: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """It ends: its model could not be loaded, or its engine has stopped."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Answer:
    """To the question of that number: a value, or why there is none."""

    number: int
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Pong:
    """It is alive. figures: of its store. steps: that it has made. stuck: seconds that the present
    one has taken. cached: of its cache, if it has one. links: of its first rank, to the others and
    to other hosts.
    """

    figures: Figures
    steps: int
    stuck: float
    cached: CacheFigures | None = None
    links: Sequence[LinkFigures] = ()


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step, without its pictures."""

    plan: StepPlan
    result: StepResult


class Channel(Protocol):
    """One end. Any thread may send, one receives. meter: of messages, and of their bytes where they
    become such.
    """

    @property
    def meter(self) -> Meter: ...

    def send(self, message: object) -> None:
        """Raises OSError where nobody is at the other end."""
        ...

    def receive(self) -> object:
        """Waits. Raises EOFError where nobody is at the other end any more."""
        ...

    def close(self) -> None:
        """Whoever waits here or there is told so."""
        ...


class PipeChannel:
    """Between a process and one that it has started."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.meter = Meter()

    def send(self, message: object) -> None:
        packed = pickle.dumps(message)
        with self._lock:
            self._connection.send_bytes(packed)
        self.meter.saw(sent=len(packed))

    def receive(self) -> object:
        try:
            packed = self._connection.recv_bytes()
        except OSError as error:
            raise EOFError(str(error)) from error
        self.meter.saw(received=len(packed))
        return pickle.loads(packed)

    def close(self) -> None:
        self._connection.close()
