"""How a fleet stands, of how its workers do."""

from __future__ import annotations

from collections.abc import Sequence

from musiva.engine.standing import Ledger, Standing

__all__ = ["together"]


def together(found: Sequence[Standing], ledger: Ledger, now: float, homeless: int) -> Standing:
    """Of all workers. ledger: of the fleet, since a request that one worker refuses may go to the
    next. homeless: requests that are on no worker. The backlog is that of a worker in the mean.
    """
    lately, seconds = ledger.lately(now)
    good = sum(ended.good for ended in lately)
    running = [(one.quality, one.running) for one in found if one.quality is not None]
    weight = sum(count for _, count in running)
    workers = max(len(found), 1)
    return Standing(
        waiting=sum(one.waiting for one in found) + homeless,
        running=sum(one.running for one in found),
        backlog=sum(one.backlog for one in found) / workers,
        backlog_floor=sum(one.backlog_floor for one in found) / workers,
        goodput=good / seconds,
        attainment=good / len(lately) if lately else None,
        refused=sum(ended.refused for ended in lately),
        quality=sum(q * n for q, n in running) / weight if weight else None,
    )
