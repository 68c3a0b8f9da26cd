"""Policies: which evaluations of a sample are computed, and what stands in for the others.

| policy     | decides |
|------------|---------|
| `never`    | nothing is reused: the dense run |
| `interval` | every so many evaluations are computed, with a forecast between |

A policy of your own is a class like those, in a file of yours: `FILE.py:CLASS`.
"""

from __future__ import annotations

from musiva.policy.base import PROBES, Policy, Trip
from musiva.policy.catalog import (
    POLICIES,
    PolicyClass,
    build_policy,
    load_policy_class,
    with_own,
)
from musiva.policy.forecast import Anchors
from musiva.policy.interval import Interval
from musiva.policy.never import Never

__all__ = [
    "POLICIES",
    "PROBES",
    "Anchors",
    "Interval",
    "Never",
    "Policy",
    "PolicyClass",
    "Trip",
    "build_policy",
    "load_policy_class",
    "with_own",
]
