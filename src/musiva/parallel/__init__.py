"""Several devices on one pack."""

from __future__ import annotations

from musiva.parallel.forms import (
    FORMS,
    Form,
    Sharing,
    check_degree,
    check_form,
    rank_of,
    rows_of,
    teams_of,
)
from musiva.parallel.sequence import SequenceRun
from musiva.parallel.shards import Axis, bounds, shards
from musiva.parallel.spread import spread
from musiva.parallel.strips import Strips, Unshared
from musiva.parallel.teams import Team, Teams

__all__ = [
    "FORMS",
    "Axis",
    "Form",
    "SequenceRun",
    "Sharing",
    "Strips",
    "Team",
    "Teams",
    "Unshared",
    "bounds",
    "check_degree",
    "check_form",
    "rank_of",
    "rows_of",
    "shards",
    "spread",
    "teams_of",
]
