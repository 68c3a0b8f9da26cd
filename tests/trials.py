"""Captured classes of diffusers, each captured once for all tests of a process."""

from __future__ import annotations

from functools import cache

from musiva.models.captured import captured_from, signature_of
from musiva.perf.captures import Trial
from musiva.perf.catalog import ENTRIES, build

__all__ = ["BY_NAME", "trial_of"]

BY_NAME = {entry.name: entry for entry in ENTRIES}


@cache
def trial_of(name: str) -> Trial:
    """Tests only read it."""
    module = build(BY_NAME[name])
    return Trial(captured_from(module), signature_of(module))
