"""Softmax attention in groups of rows of a pack; README.md has the mathematics."""

from __future__ import annotations

from musiva.ops.attention.reference import attend_reference
from musiva.ops.attention.sdpa import attend

__all__ = ["attend", "attend_reference"]
