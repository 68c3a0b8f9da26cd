"""Several devices on one pack."""

from __future__ import annotations

from musiva.parallel.forms import FORMS, Form, check_form, rank_of
from musiva.parallel.sequence import SequenceRun
from musiva.parallel.shards import Axis, bounds, shards
from musiva.parallel.spread import spread

__all__ = [
    "FORMS",
    "Axis",
    "Form",
    "SequenceRun",
    "bounds",
    "check_form",
    "rank_of",
    "shards",
    "spread",
]
