"""Several devices on one pack."""

from __future__ import annotations

from musiva.parallel.sequence import Form, SequenceRun
from musiva.parallel.shards import Axis, shards

__all__ = ["Axis", "Form", "SequenceRun", "shards"]
