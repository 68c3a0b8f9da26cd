"""Fleets whose workers are threads of the test, and what their requests were told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from musiva.core.types import Event
from musiva.engine import Engine, Fleet, Workers
from musiva.engine.fleet import Threads
from musiva.engine.pipeline import Pipeline

__all__ = ["Told", "expected", "fleet_of", "kill", "submit"]


@dataclass
class Told:
    """Events of one request; `also` is called with each."""

    also: Callable[[Event], object] = lambda event: None
    events: list[Event] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Event) -> None:
        assert not self.ended.is_set(), f"{event.kind} after the end"
        self.events.append(event)
        if event.kind in ("done", "failed"):
            self.ended.set()
        self.also(event)

    def wait(self, seconds: float = 60.0) -> Told:
        assert self.ended.wait(seconds), [event.kind for event in self.events]
        return self

    @property
    def error(self) -> Exception | None:
        return self.events[-1].error

    @property
    def pictures(self) -> dict[int, np.ndarray]:
        found = [event for event in self.events if event.kind == "picture"]
        assert len({event.index for event in found}) == len(found), "a picture was told twice"
        return {event.index: event.picture for event in found}

    def check_order(self) -> None:
        """Evaluations only ever rise, and nothing comes after a picture."""
        last: dict[int, float] = {}
        for event in self.events:
            if event.kind == "progress":
                assert event.evaluation > last.get(event.index, 0)
                last[event.index] = event.evaluation
            elif event.kind == "picture":
                assert last.get(event.index) != np.inf
                last[event.index] = np.inf
        assert [event.kind for event in self.events].count("admitted") <= 1


@contextmanager
def fleet_of(
    pipeline: Pipeline, count: int = 2, config: Engine.Config | None = None, **workers: float | str
) -> Iterator[Fleet]:
    with Fleet(
        pipeline,
        Workers(count=count, **workers),  # type: ignore[arg-type]
        config,
        model=pipeline.name,
        launcher=Threads(pipeline),
    ) as fleet:
        yield fleet


def submit(fleet: Fleet, told: Told, latents: list[Tensor] | None = None, **asked: object) -> Told:
    fleet.submit(fleet.request(**asked), told, latents=latents)  # type: ignore[arg-type]
    return told


def kill(fleet: Fleet, request: str) -> None:
    """End the worker that has a request, as if its process were killed."""
    ticket = fleet._tickets.get(request)
    if ticket is not None and ticket.member is not None:
        ticket.member.hold.kill()


def expected(pipeline: Pipeline, asked: Mapping[str, object]) -> list[np.ndarray]:
    """What one engine makes of it."""
    with Engine(pipeline) as engine:
        told = Told()
        engine.submit(engine.request(**asked), told)  # type: ignore[arg-type]
        pictures = told.wait().pictures
    return [pictures[i] for i in sorted(pictures)]
