"""Several devices on one pack."""

from __future__ import annotations

from musiva.parallel.sequence import FORMS, Form, SequenceRun
from musiva.parallel.shards import Axis, shards

__all__ = ["FORMS", "Axis", "Form", "SequenceRun", "shards"]
