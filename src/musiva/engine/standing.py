"""How an engine stands: what waits, what became of pictures, and what a request would get."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from musiva.comm import LinkFigures

__all__ = ["Ended", "Estimate", "Ledger", "Standing", "WorkerStanding"]

REMEMBERED = 1024
WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A picture that is there, or a request that was refused. good: on time, as promised, and not
    refused. quality: the lowest that was used; None without a picture.
    """

    at: float
    good: bool
    refused: bool = False
    quality: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """waiting, running: requests. backlog: seconds of work that are left as exactly as it is done
    now; backlog_floor: with all at their floors. goodput: pictures a second, of the last minute,
    that were on time. attainment: their share of all that ended or was refused then; None if there
    was none. refused: requests of that minute. quality: mean of what is used now; None if nothing
    runs.
    """

    waiting: int
    running: int
    backlog: float
    backlog_floor: float
    goodput: float
    attainment: float | None
    refused: int
    quality: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a request would get that came now. quality: promised. finish: seconds until its pictures
    should be there. refusal: why it would be refused, or None. work: seconds that it takes itself.
    """

    quality: int
    finish: float
    work: float
    refusal: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStanding:
    """phase: starting, ready, draining or gone. pid: of its process; None where it has none. life:
    which of the workers that had its place, from 1. requests: that it has; waiting: those of them
    that have not begun. seconds: of work, about, if all went on as dense runs. steps: that it has
    made. store_bytes: of the pages in its store. found, not_found: pages of the cluster that it
    asked for. host: the machine that it is on, once it is known. links: what it sends, and to whom.
    """

    number: int
    phase: str
    pid: int | None
    life: int
    requests: int
    waiting: int
    seconds: float
    steps: int
    store_bytes: int
    found: int = 0
    not_found: int = 0
    host: str | None = None
    links: Sequence[LinkFigures] = ()


@dataclass(slots=True)
class Ledger:
    """Pictures and refusals of the last minute, as many as are remembered."""

    since: float
    ended: deque[Ended] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def lately(self, now: float) -> tuple[Sequence[Ended], float]:
        """Those of the last minute, and the seconds that this is, if it was not so long."""
        recent = [ended for ended in self.ended if ended.at > now - WINDOW_SECONDS]
        full = len(self.ended) == REMEMBERED and len(recent) == REMEMBERED
        begun = recent[0].at if full else max(self.since, now - WINDOW_SECONDS)
        return recent, max(now - begun, 1e-9)
