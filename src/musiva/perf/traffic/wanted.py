"""Requests of a trace as step loops take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from musiva.core.types import Event, Request
from musiva.engine import Intake, StepLoop
from musiva.engine.journal import Resumption
from musiva.perf.traffic.trace import Asked
from musiva.policy import Policy, Trip

__all__ = ["Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """asked: what the trace says. The others are those of `StepLoop.submit`."""

    asked: Asked
    request: Request
    policies: Sequence[Policy]
    trip: Trip
    rows: int
    decode_shares: Sequence[float] = (1.0,)

    @classmethod
    def of(cls, intake: Intake, name: str, asked: Asked) -> Wanted:
        """With that id. Raises InvalidInput."""
        request = intake.request(asked.prompt, **asked.options(), request_id=name)
        return cls(
            asked,
            request,
            intake.policies_of(request),
            intake.trip_of(request),
            intake.rows_of(request),
            intake.pipeline.decode_shares(request.frames),
        )

    def submit(
        self,
        loop: StepLoop,
        arrived: float,
        resumed: Mapping[int, Resumption | None] | None = None,
    ) -> Event:
        """See `StepLoop.submit`."""
        return loop.submit(
            self.request,
            policies=self.policies,
            trip=self.trip,
            rows=self.rows,
            decode_shares=self.decode_shares,
            arrived=arrived,
            resumed=resumed,
        )
