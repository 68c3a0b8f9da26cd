"""What a step takes a worker: the slowest of its ranks, and what these send each other.

N ranks, M bytes of all activations of the image in a pack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from musiva.core.types import DenoiseItem, Kind, StepPlan
from musiva.cost import Work
from musiva.engine.scheduler.prices import work_of
from musiva.engine.state import EngineState
from musiva.parallel import rank_of
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
    if setting.workers.form == "branches":
        parts, sent, messages = _by_branch(plan, state, degree), 0.0, 0
    else:
        parts = [_share(work, degree)]
        sent, messages = _around_attention(work, setting)
    # All that was predicted goes to all.
    sent += (degree - 1) * max(part.rows for part in parts) * sends.prediction
    slowest = max(cost.seconds(part) for part in parts) / cluster.rate
    return Priced(slowest + cluster.exchange(degree, sent, messages + 1), work.rows)


def _around_attention(work: Work, setting: Setting) -> tuple[float, int]:
    """Bytes that leave a rank, and in how many exchanges: 4 M (N - 1) / N^2 an attention with
    "ulysses", and 2 M (N - 1) / N^2 one in columns with "dynamic".
    """
    degree, sends = setting.workers.degree, setting.sends
    each = work.rows * sends.row * (degree - 1) / degree**2
    if setting.workers.form == "ulysses":
        return 4.0 * each * sends.attentions, EXCHANGES * sends.attentions
    return 2.0 * each * sends.switches, EXCHANGES * sends.switches


def _share(work: Work, degree: int) -> Work:
    """Of the rank that has most of the tokens of every sample."""
    return replace(
        work,
        rows=-(-work.rows // degree),
        pairs=-(-work.pairs // degree),
        paged=-(-work.paged // degree),
    )


def _by_branch(plan: StepPlan, state: EngineState, degree: int) -> Sequence[Work]:
    """Of each rank, where these have whole branches."""
    rows, pairs, branches, paged = ([0] * degree for _ in range(4))
    for item in plan.items:
        assert isinstance(item, DenoiseItem)
        one = work_of(replace(plan, items=(item,)), state)
        own = Counter(rank_of(item.sample, branch, degree) for branch in item.computed)
        for rank, count in own.items():
            rows[rank] += one.rows * count // one.branches
            pairs[rank] += one.pairs * count // one.branches
            paged[rank] += one.paged * count // one.branches
            branches[rank] += count
    whole = work_of(plan, state)
    return [
        replace(whole, rows=r, pairs=p, branches=b, paged=g)
        for r, p, b, g in zip(rows, pairs, branches, paged, strict=True)
    ]
