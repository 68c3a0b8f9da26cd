"""Captured classes of diffusers, each captured once for all tests of a process."""

from __future__ import annotations

from functools import cache

from musiva.compiler import SIZES
from musiva.compiler.capture import analyse
from musiva.compiler.export import Aligned
from musiva.models.captured import captured_from, signature_of
from musiva.perf.captures import Trial
from musiva.perf.catalog import ENTRIES, build

__all__ = ["BY_NAME", "graphs_of", "trial_of"]

BY_NAME = {entry.name: entry for entry in ENTRIES}


@cache
def trial_of(name: str) -> Trial:
    """Tests only read it."""
    module = build(BY_NAME[name])
    return Trial(captured_from(module), signature_of(module))


@cache
def graphs_of(name: str) -> Aligned:
    """Of the class at the sizes of a capture."""
    trial = trial_of(name)
    sizes = [trial.signature.sized(one) for one in SIZES]
    return analyse(trial.denoiser.module, trial.signature.arguments, sizes).aligned
