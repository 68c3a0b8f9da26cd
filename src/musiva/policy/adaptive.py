"""As many evaluations as a picture needs: calibrated forecasts, held to a tolerance.

The classical control of a solver's step size by an embedded error estimate (Hairer, Norsett and
Wanner 1993, II.4), with evaluations of the model for steps: where the model computes, it shows by
how much the forecast was wrong, over what is usual at that place and gap. Pictures that surprise
get shorter gaps, the others longer ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from musiva.core.errors import InvalidInput
from musiva.core.types import COMPUTE, Action
from musiva.policy.base import Trip
from musiva.policy.fields import check_number

__all__ = ["Adaptive"]

HELD = Action(compute=False, order=1, calibrated=True)
FIRST = Action(coarse=True)
# More than there are evaluations of any path.
MOST_GAPS = 1e6
# Of an evaluation whose unconditional branch is on a quarter of the tokens.
COARSE_SHARE = 0.625


@dataclass(frozen=True, slots=True)
class Progress:
    """computed: evaluations so far. last: the one that was computed last, -1 before any. surprise:
    mean logarithm of how wrong forecasts were over what is usual.

    Nothing in it depends on the tolerance, which may be another one at every evaluation.
    """

    computed: int = 0
    last: int = -1
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
        return Progress()

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
        return Progress(computed, evaluation, surprise)

    def act(self, trip: Trip, memory: Progress, evaluation: int, longer: float = 1.0) -> Action:
        if memory.computed and evaluation < self.following(trip, memory, longer):
            return HELD
        # No tolerance at all is the dense run.
        coarse = evaluation == 0 and trip.coarse and self.tolerance > 0.0
        return FIRST if coarse else COMPUTE

    def left(self, trip: Trip, memory: Progress) -> float:
        """Evaluations that are still to be computed, if the picture goes on to surprise as it did;
        a first one with a coarser branch is one less what that saves.
        """
        if memory.computed:
            gaps = self._gaps(memory, 1.0 - trip.times[memory.last])
            return min(gaps - 1, trip.num_evaluations - 1 - memory.last)
        first = COARSE_SHARE if trip.coarse and self.tolerance > 0.0 else 1.0
        return first + min(self._gaps(memory, 1.0) - 1, trip.num_evaluations - 1)

    def following(self, trip: Trip, progress: Progress, longer: float = 1.0) -> int:
        """The evaluation that computes next; that of the end is one past the last. What is left of
        the path goes into equal gaps, which may be `longer` times as long as else.
        """
        here, total = trip.times[progress.last], trip.num_evaluations
        gaps = self._gaps(progress, 1.0 - here, longer)
        if gaps == 1:
            return total
        there, least = here + (1.0 - here) / gaps, progress.last + 1
        above = bisect_left(trip.times, there, least)
        if above == total or (
            above > least and there - trip.times[above - 1] <= trip.times[above] - there
        ):
            above -= 1
        return max(above, least)

    def _gaps(self, progress: Progress, left: float, longer: float = 1.0) -> float:
        """How many gaps a part of the path takes; infinitely many without a tolerance."""
        gain = self.gain + (self.caution if progress.surprise > 0.0 else 0.0)
        gap = min(self.tolerance * math.exp(-gain * progress.surprise) * longer, self.max_gap)
        if left > gap * MOST_GAPS:
            return math.inf
        return max(round(left / gap), math.ceil(left / self.max_gap - 1e-9), 1)
