"""PixArt-alpha and PixArt-Sigma (Chen et al., 2023 and 2024): cross-attended text, one AdaLN for
all blocks.
"""

from __future__ import annotations

from musiva.models.pixart.config import PixArtConfig, from_config
from musiva.models.pixart.model import PixArt
from musiva.models.pixart.weights import from_diffusers, to_diffusers

__all__ = ["PixArt", "PixArtConfig", "from_config", "from_diffusers", "to_diffusers"]
