"""A policy that computes everything and measures what `adaptive` measures."""

from __future__ import annotations

from musiva.policy import Never

__all__ = ["Probed"]


class Probed(Never):
    probes = ("surprise",)
    keep = 2
