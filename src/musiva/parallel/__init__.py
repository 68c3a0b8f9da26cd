"""Several devices on one pack."""

from __future__ import annotations

from musiva.parallel.forms import FORMS, Form, rank_of
from musiva.parallel.sequence import SequenceRun
from musiva.parallel.shards import Axis, shards

__all__ = ["FORMS", "Axis", "Form", "SequenceRun", "rank_of", "shards"]
