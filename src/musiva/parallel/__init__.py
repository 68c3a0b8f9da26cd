"""Several devices on one pack."""

from __future__ import annotations

from musiva.parallel.forms import FORMS, Form, check_form, rank_of
from musiva.parallel.sequence import SequenceRun
from musiva.parallel.shards import Axis, bounds, shards
from musiva.parallel.spread import spread
from musiva.parallel.strips import Strips, Unshared

__all__ = [
    "FORMS",
    "Axis",
    "Form",
    "SequenceRun",
    "Strips",
    "Unshared",
    "bounds",
    "check_form",
    "rank_of",
    "shards",
    "spread",
]
