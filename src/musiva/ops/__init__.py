"""Operators on packs, one folder each: a slow, obvious reference beside every fast path."""

from __future__ import annotations

__all__: list[str] = []
