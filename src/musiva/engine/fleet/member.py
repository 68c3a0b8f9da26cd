"""One worker as its fleet sees it."""

from __future__ import annotations

import logging
import platform
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import Any

from musiva.comm import LinkFigures
from musiva.core.errors import Unavailable
from musiva.core.types import Request
from musiva.engine.fleet.launcher import Hold
from musiva.engine.fleet.wire import Answer, Ask, Close, Failed, Pong, Ready
from musiva.store import CacheFigures, Figures

__all__ = ["Member", "Phase"]

log = logging.getLogger(__name__)
# Seconds that a process that was killed may take to be gone.
REAPED = 5.0


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    # It takes nothing any more, and ends when it has nothing.
    DRAINING = "draining"
    GONE = "gone"


class Member:
    """A thread hears the worker, another one speaks to it, so that a worker that does not listen
    holds up nobody. Thread-safe.

    number: its place in the fleet; life: which of the workers that had this place. heard: gets what
    it says beside answers, lost: that it is gone, once, both in the thread that hears it.
    was_ready: it has been. drained: it was told to end. failure: why it ended, where anybody knows.
    cached: figures of its cache. told_links: to others than this process. ready: what it said when
    it was. heard_at: by the clock. stuck: seconds that its step has taken, when it was asked last.
    """

    def __init__(
        self,
        number: int,
        life: int,
        hold: Hold,
        heard: Callable[[Member, object], None],
        lost: Callable[[Member], None],
        clock: Callable[[], float],
    ) -> None:
        self.number, self.life, self.hold = number, life, hold
        self.phase = Phase.STARTING
        self.was_ready = self.drained = False
        self.stuck = 0.0
        self.failure: Exception | None = None
        self.figures: Figures | None = None
        self.cached: CacheFigures | None = None
        self.told_links: Sequence[LinkFigures] = ()
        self.ready: Ready | None = None
        self.steps = 0
        self.heard_at = clock()
        self._heard, self._lost, self._clock = heard, lost, clock
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._questions: dict[int, Future[Any]] = {}
        self._asked = 0
        for name, body in (("hears", self._hear), ("speaks", self._speak)):
            thread = threading.Thread(target=body, name=f"musiva-fleet-{name}-{number}")
            thread.daemon = True
            thread.start()

    @property
    def name(self) -> str:
        return f"worker {self.number}"

    @property
    def links(self) -> list[LinkFigures]:
        """Of the worker, that to this process first."""
        return [self.hold.channel.meter.mirrored("server", platform.node()), *self.told_links]

    def send(self, message: object) -> None:
        self._outbox.put(message)

    def end(self) -> None:
        """Let it cancel all that it has, and end."""
        self.drained = True
        self._outbox.put(Close())

    def fail(self, why: str) -> None:
        """End it at once."""
        self.failure = self.failure or Unavailable(f"{self.name}: {why}")
        self.hold.kill()

    def ask(self, request: Request | None = None) -> Future[Any]:
        """How it stands, or what a request would get; fails with Unavailable where it is gone."""
        answer: Future[Any] = Future()
        with self._lock:
            if self.phase is Phase.GONE:
                answer.set_exception(Unavailable(f"{self.name} is gone"))
                return answer
            self._asked += 1
            self._questions[self._asked] = answer
            self._outbox.put(Ask(self._asked, request))
        return answer

    def _hear(self) -> None:
        try:
            while True:
                message = self.hold.channel.receive()
                self.heard_at = self._clock()
                if isinstance(message, Answer):
                    self._enter(message)
                    continue
                if isinstance(message, Pong):
                    self.figures, self.steps = message.figures, message.steps
                    self.stuck, self.cached = message.stuck, message.cached
                    self.told_links = message.links
                elif isinstance(message, Failed):
                    self.failure = self.failure or message.error
                    break
                self._heard(self, message)
        except EOFError:
            pass
        except Exception as error:
            log.exception("%s says what cannot be understood", self.name)
            self.failure = self.failure or error
        finally:
            self._end()

    def _end(self) -> None:
        """It is gone, or made to be."""
        self._outbox.put(None)
        with self._lock:
            self.phase = Phase.GONE
            questions, self._questions = list(self._questions.values()), {}
        for question in questions:
            question.set_exception(Unavailable(f"{self.name} is gone"))
        try:
            self.hold.kill()
            self.hold.join(REAPED)
        except Exception:
            log.exception("%s cannot be ended", self.name)
        self._lost(self)

    def _speak(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self.hold.channel.send(message)
            except OSError:
                return  # it is heard that nobody is there
            if isinstance(message, Close):
                return

    def _enter(self, message: Answer) -> None:
        with self._lock:
            question = self._questions.pop(message.number, None)
        if question is None:
            return
        if message.error is not None:
            question.set_exception(message.error)
        else:
            question.set_result(message.value)
