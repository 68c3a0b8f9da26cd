"""Fairness between tenants where there is not enough for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from musiva.engine.sample import SampleState
from musiva.engine.scheduler.base import View

__all__ = ["due_without_deadline", "over_share"]

# Of the device's time, from which on tenants are held to their shares; and of how many arrivals.
PRESSED = 0.9
ENOUGH = 16


def over_share(
    view: View, samples: Sequence[SampleState], weights: Mapping[str, float]
) -> str | None:
    """Why a request should be refused, if its tenant had more than its share of what was admitted
    lately, while that was about all that the device can do at the floor, and others came too.
    """
    arrivals, tenant = view.state.arrivals, samples[0].request.tenant
    tenants = {arrival.tenant for arrival in arrivals} | {tenant}
    if len(tenants) < 2 or len(arrivals) < ENOUGH:
        return None
    span = max(view.now - arrivals[0].at, 1e-9)
    floors = dict.fromkeys(tenants, 0.0)
    for arrival in arrivals:
        floors[arrival.tenant] += arrival.work[-1]
    if sum(floors.values()) < PRESSED * span:
        return None
    share = weights.get(tenant, 1.0) / sum(weights.get(name, 1.0) for name in tenants)
    asked = sum(view.prices.left(sample, -1) for sample in samples)
    if floors[tenant] + asked <= share * span:
        return None
    return f"tenant {tenant!r} has had its share of {share:.0%} of the device's time lately"


def due_without_deadline(view: View, sample: SampleState, weights: Mapping[str, float]) -> float:
    """When a sample without a deadline is due: after the patience; and behind what its tenant
    already waits for, by the seconds that this takes at the tenant's share (virtual finish times:
    Demers, Keshav and Shenker 1989), so that a flood of one tenant queues behind itself.
    """
    tenant, last = sample.request.tenant, view.state.last_due
    waiting = set(last) | {tenant}
    share = weights.get(tenant, 1.0) / sum(weights.get(name, 1.0) for name in waiting)
    behind = last.get(tenant, 0.0) + view.prices.left(sample, 0) / share
    return max(view.now + view.patience, behind)
