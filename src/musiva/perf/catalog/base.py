"""How a transformer class of diffusers is built small, and what it is called with.

Every argument is that of one sample (`musiva.compiler.arguments`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module

import torch
from torch import nn

from musiva.compiler.arguments import Argument, Sizes

__all__ = ["Entry", "Excluded", "build", "sized"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A class that predicts an image or a clip. config: small, of our own. multiples: sizes that
    have to be multiples of a number. fixed: sizes that the class does not let vary. same: sizes
    that are always those of another name.
    """

    name: str
    config: Mapping[str, object]
    arguments: Mapping[str, Argument]
    multiples: Sizes = field(default_factory=dict)
    fixed: Sizes = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)


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


def sized(entry: Entry, sizes: Sizes) -> dict[str, int]:
    """As the class allows them."""
    found = {name: size * entry.multiples.get(name, 1) for name, size in sizes.items()}
    found |= entry.fixed
    return found | {name: found[other] for name, other in entry.same.items()}
