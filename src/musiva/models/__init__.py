"""Denoisers, text encoders and autoencoders: single-device code that knows no policy."""

from __future__ import annotations

from musiva.models.base import Denoiser, Inputs
from musiva.models.weights import load_weights, read_config, read_tensors

__all__ = [
    "Denoiser",
    "Inputs",
    "load_weights",
    "read_config",
    "read_tensors",
]
