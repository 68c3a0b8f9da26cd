"""How a transformer class of diffusers is built small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import nn

__all__ = ["Entry", "Excluded", "build"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A class that predicts an image or a clip. config: small, of our own."""

    name: str
    config: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Excluded:
    """A transformer class that does not predict an image or a clip, or not by itself."""

    name: str
    reason: str


def build(entry: Entry, seed: int = 0) -> nn.Module:
    """The class with random weights; what it starts with as zeros, or does not set, is random too,
    so that every parameter matters.
    """
    torch.manual_seed(seed)
    module: nn.Module = getattr(import_module("diffusers"), entry.name)(**entry.config)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in module.parameters():
            plain = bool(torch.isfinite(parameter).all()) and 0 < parameter.abs().max() < 1e4
            if not plain:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval().requires_grad_(False)
