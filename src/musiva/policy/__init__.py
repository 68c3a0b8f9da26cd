"""Policies: which evaluations of a sample are computed, and what stands in for the others.

| policy        | decides |
|---------------|---------|
| `never`       | nothing is reused: the dense run |
| `interval`    | every so many evaluations are computed, with a forecast between |
| `adaptive`    | as many as it takes to keep calibrated forecasts within a tolerance |
| `adaptive_tiles` | the same, with evaluations of a few tiles where that is cheaper |
| `first_block` | those whose first block has changed; else the other blocks are held |
| `tea_cache`   | those until which the first block's input has changed; else all blocks are held |
| `ras`         | all at some, else the tiles that matter; the others are held |
| `refine`      | as `interval`, and half way the tiles that were forecast worst |
| `marked`      | those that a number marks: what load has chosen once, again |

A policy of your own is a class like those, in a file of yours: `FILE.py:CLASS`.
"""

from __future__ import annotations

from musiva.policy.adaptive import Adaptive
from musiva.policy.adaptive_tiles import AdaptiveTiles
from musiva.policy.bands import EDGES, Bands, bands_of
from musiva.policy.base import PROBES, TILE_PROBES, Asks, Policy, TilePolicy, Trip
from musiva.policy.calibration import FOLDER, Calibration, Conditions, Measured
from musiva.policy.catalog import (
    POLICIES,
    PolicyClass,
    build_policy,
    load_policy_class,
    place_of,
    with_own,
)
from musiva.policy.first_block import FirstBlock
from musiva.policy.forecast import Anchors, polynomial_weights
from musiva.policy.interval import Interval
from musiva.policy.kriging import Kriging, shape_of_correction, shape_of_surprise
from musiva.policy.marked import Marked, marked_as
from musiva.policy.never import Never
from musiva.policy.quality import floor_db, levels_between, promising, quality_of
from musiva.policy.ras import Ras
from musiva.policy.refine import Refine
from musiva.policy.tea_cache import TeaCache

__all__ = [
    "EDGES",
    "FOLDER",
    "POLICIES",
    "PROBES",
    "TILE_PROBES",
    "Adaptive",
    "AdaptiveTiles",
    "Anchors",
    "Asks",
    "Bands",
    "Calibration",
    "Conditions",
    "FirstBlock",
    "Interval",
    "Kriging",
    "Marked",
    "Measured",
    "Never",
    "Policy",
    "PolicyClass",
    "Ras",
    "Refine",
    "TeaCache",
    "TilePolicy",
    "Trip",
    "bands_of",
    "build_policy",
    "floor_db",
    "levels_between",
    "load_policy_class",
    "marked_as",
    "place_of",
    "polynomial_weights",
    "promising",
    "quality_of",
    "shape_of_correction",
    "shape_of_surprise",
    "with_own",
]
