"""As many evaluations as a picture needs: calibrated forecasts, held to a tolerance.

The classical control of a solver's step size by an embedded error estimate (Hairer, Norsett and
Wanner 1993, II.4), with evaluations of the model for steps: where the model computes, it shows by
how much the forecast was wrong, over what is usual at that place and gap. Pictures that surprise
get shorter gaps, the others longer ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from musiva.core.errors import InvalidInput
from musiva.core.types import COMPUTE, Action
from musiva.policy.base import Trip
from musiva.policy.fields import check_number

__all__ = ["Adaptive"]

HELD = Action(compute=False, order=1, calibrated=True)
FIRST = Action(coarse=True)


@dataclass(frozen=True, slots=True)
class Progress:
    """computed: evaluations so far. following: the one that computes next; that of the end is one
    past the last. surprise: mean logarithm of how wrong forecasts were over what is usual.
    """

    computed: int
    following: int
    surprise: float = 0.0


@dataclass(frozen=True)
class Adaptive:
    """Gaps of `tolerance`, a share of the path, for a picture that surprises as usual; times
    surprise ** -`gain` for others, of `max_gap` at most. For one that surprises more than usual
    `caution` is added to `gain`: it costs some of the mean, and lifts the few that are hard.
    """

    tolerance: float = 0.12
    gain: float = 0.2
    max_gap: float = 0.3
    caution: float = 0.0
    probes = ("surprise",)
    keep = 2

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, 0.0, 1.0)
        check_number("gain", self.gain, 0.0, 2.0)
        check_number("max_gap", self.max_gap, 0.0, 1.0)
        check_number("caution", self.caution, 0.0, 10.0)

    def begin(self, trip: Trip) -> Progress:
        """Raises InvalidInput for a model that is not calibrated."""
        if not trip.calibrated:
            allowed = "another one: the model has no calibration; `musiva calibrate` makes it"
            raise InvalidInput("policy", "adaptive", allowed)
        return Progress(computed=0, following=0)

    def observe(
        self,
        trip: Trip,
        memory: Progress,
        evaluation: int,
        action: Action,
        measured: Mapping[str, float],
    ) -> Progress:
        computed, surprise = memory.computed + 1, memory.surprise
        if measured.get("surprise", 0.0) > 0.0:
            # The mean over all forecasts that were checked; the first value has none.
            surprise += (math.log(measured["surprise"]) - surprise) / memory.computed
        progress = Progress(computed, evaluation, surprise)
        return replace(progress, following=self.after(trip, evaluation, progress))

    def act(self, trip: Trip, memory: Progress, evaluation: int) -> Action:
        if evaluation < memory.following:
            return HELD
        # No tolerance at all is the dense run.
        coarse = evaluation == 0 and trip.coarse and self.tolerance > 0.0
        return FIRST if coarse else COMPUTE

    def after(self, trip: Trip, evaluation: int, progress: Progress, longer: float = 1.0) -> int:
        """The evaluation that computes next. What is left of the path goes into equal gaps, which
        may be `longer` times as long as else.
        """
        gain = self.gain + (self.caution if progress.surprise > 0.0 else 0.0)
        usual = self.tolerance * math.exp(-gain * progress.surprise)
        gap = min(usual * longer, self.max_gap)
        if gap <= 0.0:
            return evaluation + 1
        here = trip.times[evaluation]
        left = 1.0 - here
        gaps = max(round(left / gap), math.ceil(left / self.max_gap - 1e-9), 1)
        there = here + left / gaps
        if gaps == 1:
            return trip.num_evaluations
        later = range(evaluation + 1, trip.num_evaluations)
        return min(later, key=lambda i: abs(trip.times[i] - there), default=trip.num_evaluations)
