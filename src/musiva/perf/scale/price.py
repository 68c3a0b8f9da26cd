"""What a step takes a worker: the slowest of its ranks, and what these send each other.

N ranks that share rows, M bytes of all activations of the image that they have together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from musiva.core.types import DenoiseItem, Kind, StepPlan
from musiva.cost import Work
from musiva.engine.scheduler.prices import work_of
from musiva.engine.state import EngineState
from musiva.parallel import rank_of, rows_of, teams_of
from musiva.perf.scale.setting import Setting

__all__ = ["Priced", "price"]

# Of one attention: there and back.
EXCHANGES = 2


@dataclass(frozen=True, slots=True)
class Priced:
    """Of a step. seconds: with all that is sent. rows: of the pack."""

    seconds: float
    rows: int


def price(plan: StepPlan, state: EngineState, setting: Setting) -> Priced:
    """What a plan takes a worker that has its devices to itself."""
    work, degree = work_of(plan, state), setting.workers.degree
    cost, cluster, sends = setting.cost, setting.cluster, setting.sends
    if degree == 1 or plan.kind is not Kind.DENOISE or not work.rows:
        # Prompts and pictures are each rank's own to make.
        return Priced(cost.seconds(work) / cluster.rate, work.rows)
    teams = teams_of(setting.workers.form, degree)
    each = degree // teams
    several = _by_team(plan, state, teams)
    slowest = max(_team_seconds(one, each, setting) for one in several)
    # All that was predicted goes to all.
    sent = (degree - 1) * max(_share(one, each).rows for one in several) * sends.prediction
    return Priced(slowest + cluster.exchange(degree, sent, 1), work.rows)


def _team_seconds(work: Work, size: int, setting: Setting) -> float:
    """Of so many ranks that have the same branches, with what they send each other on the way."""
    seconds = setting.cost.seconds(_share(work, size)) / setting.cluster.rate
    return seconds + setting.cluster.exchange(size, *_around_attention(work, size, setting))


def _around_attention(work: Work, size: int, setting: Setting) -> tuple[float, int]:
    """Bytes that leave a rank of so many, and in how many exchanges: 4 M (N - 1) / N^2 an attention
    with "ulysses", and 2 M (N - 1) / N^2 one in columns with "dynamic".
    """
    sends = setting.sends
    each = work.rows * sends.row * (size - 1) / size**2
    if rows_of(setting.workers.form) == "ulysses":
        return 4.0 * each * sends.attentions, EXCHANGES * sends.attentions
    return 2.0 * each * sends.switches, EXCHANGES * sends.switches


def _share(work: Work, size: int) -> Work:
    """Of the rank that has most of the tokens of every sample."""
    return replace(
        work,
        rows=-(-work.rows // size),
        pairs=-(-work.pairs // size),
        paged=-(-work.paged // size),
    )


def _by_team(plan: StepPlan, state: EngineState, count: int) -> Sequence[Work]:
    """Of each of so many teams of ranks, which have whole branches."""
    whole = work_of(plan, state)
    if count == 1:
        return [whole]
    rows, pairs, branches, paged = ([0] * count for _ in range(4))
    for item in plan.items:
        assert isinstance(item, DenoiseItem)
        one = work_of(replace(plan, items=(item,)), state)
        own = Counter(rank_of(item.sample, branch, count) for branch in item.computed)
        for team, its in own.items():
            rows[team] += one.rows * its // one.branches
            pairs[team] += one.pairs * its // one.branches
            paged[team] += one.paged * its // one.branches
            branches[team] += its
    return [
        replace(whole, rows=r, pairs=p, branches=b, paged=g)
        for r, p, b, g in zip(rows, pairs, branches, paged, strict=True)
    ]
