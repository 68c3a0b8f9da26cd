"""Model families, text encoders and autoencoders: single-device code that knows no policy."""

from __future__ import annotations

from musiva.models.base import Denoiser, Family, Inputs
from musiva.models.families import FAMILIES, family_of
from musiva.models.weights import load_weights, read_config, read_tensors

__all__ = [
    "FAMILIES",
    "Denoiser",
    "Family",
    "Inputs",
    "family_of",
    "load_weights",
    "read_config",
    "read_tensors",
]
