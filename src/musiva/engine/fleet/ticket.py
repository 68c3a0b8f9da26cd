"""A request of a fleet: where it is, and what has to be known to let it go on elsewhere."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from musiva.core.errors import Overloaded
from musiva.core.types import Event, Request
from musiva.engine.fleet.wire import Packed, Submit
from musiva.engine.front import Listener
from musiva.engine.journal import Entry

if TYPE_CHECKING:
    from musiva.engine.fleet.member import Member

__all__ = ["Ticket"]

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Ticket:
    """came: by the fleet's clock. seconds: that its dense run takes alone. member: that it is on;
    None while it waits for one. refusals: of members, by their numbers. losses: workers that ended
    while they had it, since it last came further. leaves: it was cancelled on its member, to go on
    elsewhere. withdrawn: by its owner. done: pictures that are there. told: of each of the others,
    the evaluations that were told, previewed: those of the last preview. kept: record and
    checkpoint of each. ended: its owner has been told so.
    """

    request: Request
    latents: Sequence[np.ndarray] | None
    listener: Listener
    came: float
    seconds: float
    member: Member | None = None
    refusals: dict[int, Overloaded] = field(default_factory=dict)
    losses: int = 0
    admitted: bool = False
    begun: bool = False
    leaves: bool = False
    withdrawn: bool = False
    done: set[int] = field(default_factory=set)
    told: dict[int, int] = field(default_factory=dict)
    previewed: dict[int, int] = field(default_factory=dict)
    kept: dict[int, Packed] = field(default_factory=dict)
    # Of all of its pictures, at least 1.
    evaluations: int = 1
    # Of workers, seconds that they would save of it.
    saved: Mapping[int, float] = field(default_factory=dict)
    ended: bool = False
    telling: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, event: Event) -> None:
        """Its owner, who hears nothing after the end."""
        with self.telling:
            if self.ended:
                return
            self.ended = event.kind in ("done", "failed")
            try:
                self.listener(event)
            except Exception:
                # The caller's code; it must not stop the pictures of others.
                name = self.request.id
                log.exception("request %s: its listener failed on %r", name, event.kind)

    def submission(self, now: float) -> Submit:
        """For the member that it goes to."""
        resumed: Mapping[int, Packed | None] | None = None
        if self.admitted:
            left = (i for i in range(self.request.num_images) if i not in self.done)
            resumed = {i: self.kept.get(i) for i in left}
        return Submit(self.request, self.latents, now - self.came, resumed)

    def enter(self, entry: Entry) -> None:
        """Keep what a member tells of a picture."""
        known = self.kept.get(entry.index)
        checkpoint = entry.checkpoint
        if checkpoint is None and known is not None:
            checkpoint = known[1]
        self.kept[entry.index] = entry.record, checkpoint

    def is_news(self, event: Event) -> bool:
        """Whether its owner has not been told yet, by the worker that had it before. Takes note."""
        index, evaluation = event.index, event.evaluation
        if event.kind == "admitted":
            fresh, self.admitted = not self.admitted, True
            # Whoever goes on with it cannot refuse it.
            self.refusals.clear()
            return fresh
        if event.kind == "progress":
            self.begun = True
            if evaluation <= self.told.get(index, 0):
                return False
            self.told[index], self.losses = evaluation, 0
            self.evaluations = event.num_evaluations * self.request.num_images
        elif event.kind == "preview":
            if evaluation <= self.previewed.get(index, 0):
                return False
            self.previewed[index] = evaluation
        elif event.kind == "picture":
            if index in self.done:
                return False
            self.done.add(index)
            self.kept.pop(index, None)
        return True

    @property
    def left(self) -> float:
        """Seconds of work, about, if it went on as its dense run."""
        done = len(self.done) / self.request.num_images
        begun = sum(n for i, n in self.told.items() if i not in self.done) / self.evaluations
        return self.seconds * max(1.0 - done - begun, 0.0)
