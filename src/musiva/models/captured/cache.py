"""Captures that are kept on disk, so that the next process needs no export."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from musiva.compiler import SIZES, Argument, Captured, Entry, Unusable, bound, capture, digest
from musiva.core.env import Env
from musiva.models.captured.key import Unkept, facts_of
from musiva.models.captured.known.base import Signature

__all__ = ["captured_of"]

log = logging.getLogger(__name__)
FOLDER = "captures"


def captured_of(module: nn.Module, signature: Signature, *, fresh: bool = False) -> Captured:
    """Of a module in the mode for evaluation: as it is kept under what it depends on, or else made
    now and kept, with the reason in the log. fresh: made now, whatever is kept. Raises
    CannotCapture.
    """
    name, arguments = type(module).__name__, signature.arguments
    sizes = [signature.sized(one) for one in SIZES]
    try:
        facts = facts_of(module, arguments, sizes)
    except Unkept as error:
        log.info("%s: its capture is not kept: %s", name, error)
        return capture(module, arguments, sizes)
    entry = Entry(Path(Env.read().cache_dir) / FOLDER / f"{name}-{digest(facts)[:32]}")
    kept = None if fresh else _kept(entry, module, arguments, facts)
    if kept is not None:
        return kept
    made = capture(module, arguments, sizes)
    made.entry = entry if entry.write(made.artifact, facts) else None
    return made


def _kept(
    entry: Entry, module: nn.Module, arguments: Mapping[str, Argument], facts: Mapping[str, str]
) -> Captured | None:
    try:
        artifact = entry.read()
    except FileNotFoundError:
        log.info("%s is captured: %s", type(module).__name__, _news(entry, facts))
        return None
    except Unusable as error:
        log.warning("%s: %s: %s is captured anew", entry.folder, error, type(module).__name__)
        return None
    log.info("%s: as it is kept in %s", type(module).__name__, entry.folder)
    return bound(module, arguments, artifact, entry, is_cached=True)


def _news(entry: Entry, facts: Mapping[str, str]) -> str:
    """What is not as it was when its class was captured last."""
    name, _, _ = entry.folder.name.rpartition("-")
    try:
        others = sorted(entry.folder.parent.glob(f"{name}-*"), key=lambda one: one.stat().st_mtime)
    except OSError:
        others = []
    if not others:
        return "nothing is kept of it"
    before = Entry(others[-1]).facts()
    return "other " + ", ".join(kind for kind in facts if before.get(kind) != facts[kind])
