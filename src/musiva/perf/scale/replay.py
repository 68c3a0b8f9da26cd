"""A trace on a real fleet, in real time."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from musiva.core.errors import Overloaded, Unavailable
from musiva.core.types import Event
from musiva.engine import Fleet
from musiva.perf.traffic import Asked, Fate, RealClock

__all__ = ["Replayed", "messages_take", "replay"]

# Seconds after which a fleet that has told of no end for so long is not waited for any more.
PATIENCE = 120.0
ASKED_TIMES = 20


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of each request. placing: seconds in which one was placed, in the median."""

    fates: Sequence[Fate]
    placing: float


def replay(fleet: Fleet, trace: Sequence[Asked]) -> Replayed:
    """Submits each request at its time. Raises what one fails of, other than being refused, and
    Unavailable where nothing ends any more.
    """
    clock, ends, taken = RealClock(), Ends(len(trace)), []
    fates = [Fate(asked) for asked in trace]
    # Whoever asks has a request that was checked; what is replayed is what becomes of it.
    requests = [fleet.request(asked.prompt, **asked.options()) for asked in trace]
    start = clock.now()
    for request, fate in zip(requests, fates, strict=True):
        clock.wait_until(start + fate.asked.at)
        began = time.perf_counter()
        fleet.submit(request, ends.listener(fate, start + fate.asked.at, clock.now))
        taken.append(time.perf_counter() - began)
    ends.wait()
    return Replayed(fates, statistics.median(taken))


def messages_take(fleet: Fleet) -> float:
    """Seconds of a message between a fleet and its workers, which have nothing to do: half of a
    question with its answer.
    """
    taken = []
    for _ in range(ASKED_TIMES):
        start = time.perf_counter()
        fleet.standing()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) / 2


class Ends:
    """Until so many requests have ended."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def listener(self, fate: Fate, at: float, now: Callable[[], float]) -> Callable[[Event], None]:
        """Of the request that came at that time."""

        def hear(event: Event) -> None:
            if event.kind == "picture":
                fate.seconds = now() - at
                fate.cost, fate.report = event.cost, event.report
            elif event.kind in ("done", "failed"):
                fate.refused = isinstance(event.error, Overloaded)
                with self._changed:
                    if event.error is not None and not fate.refused:
                        self._error = event.error
                    self._left -= 1
                    self._changed.notify_all()

        return hear

    def wait(self) -> None:
        with self._changed:
            while self._left and self._error is None:
                before = self._left
                if not self._changed.wait(PATIENCE) and self._left == before:
                    raise Unavailable(f"{before} requests have not ended for {PATIENCE:g} seconds")
        if self._error is not None:
            raise self._error
