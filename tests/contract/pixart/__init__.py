"""PixArt-alpha and PixArt-Sigma (Chen et al., 2023 and 2024), written by hand: what captured models
are held against.
"""

from __future__ import annotations

from tests.contract.pixart.config import PixArtConfig, from_config
from tests.contract.pixart.model import PixArt
from tests.contract.pixart.oracle import Oracle, pixart_of
from tests.contract.pixart.weights import from_diffusers, to_diffusers

__all__ = [
    "Oracle",
    "PixArt",
    "PixArtConfig",
    "from_config",
    "from_diffusers",
    "pixart_of",
    "to_diffusers",
]
