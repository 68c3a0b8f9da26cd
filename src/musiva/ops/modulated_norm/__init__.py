"""Adaptive layer norm over packs: norm, then scale and shift looked up per row; and the gated
add.
"""

from __future__ import annotations

from musiva.ops.modulated_norm.fused import gated_add, modulated_norm
from musiva.ops.modulated_norm.reference import gated_add_reference, modulated_norm_reference

__all__ = ["gated_add", "gated_add_reference", "modulated_norm", "modulated_norm_reference"]
