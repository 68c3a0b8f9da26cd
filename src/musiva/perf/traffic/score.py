"""How well a trace was served: goodput first."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from musiva.perf.measure import percentile
from musiva.perf.traffic.drive import Fate

__all__ = ["Score", "score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """goodput: pictures a second that were on time and at their floor or above. attainment: their
    share of all requests, of which one that was refused is missed. on_time: the share of the
    former alone; kept: of those on time, that kept their floor. latency: seconds in the 50th and
    95th percentile, of those that came. quality: mean of the lowest level of each picture. cost:
    mean of full evaluations.
    """

    requests: int
    goodput: float
    attainment: float
    on_time: float
    kept: float
    refused: float
    latency_p50: float | None
    latency_p95: float | None
    quality: float | None
    cost: float | None

    def row(self) -> Mapping[str, object]:
        return asdict(self)


def score(fates: Sequence[Fate], kept: Sequence[float]) -> Score:
    """kept: of each fate how likely its picture is at its floor or above: 0 or 1 where it was
    measured.
    """
    total = len(fates)
    on_time = [fate.on_time for fate in fates]
    good = sum(k for k, there in zip(kept, on_time, strict=True) if there)
    came = [fate for fate in fates if fate.seconds is not None]
    taken = [fate.seconds for fate in came if fate.seconds is not None]
    used = [fate.report.used for fate in came if fate.report is not None]
    # By the mean time between two, so that the last one has its time too.
    span = max(fate.asked.at for fate in fates) * total / max(total - 1, 1)
    return Score(
        requests=total,
        goodput=good / span if span > 0.0 else 0.0,
        attainment=good / total,
        on_time=sum(on_time) / total,
        kept=good / max(sum(on_time), 1),
        refused=sum(fate.refused for fate in fates) / total,
        latency_p50=percentile(taken, 50) if taken else None,
        latency_p95=percentile(taken, 95) if taken else None,
        quality=statistics.fmean(used) if used else None,
        cost=statistics.fmean(fate.cost for fate in came) if came else None,
    )
