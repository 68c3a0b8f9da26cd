"""What workers have to have in common, so that any can go on with the pictures of another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from itertools import chain

import torch
from torch import Tensor

import musiva
from musiva.engine.pipeline import Pipeline

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Versions, and a digest of the weights."""

    musiva: str
    torch: str
    weights: str

    @classmethod
    def of(cls, pipeline: Pipeline) -> Identity:
        digest = hashlib.sha256()
        modules = (pipeline.denoiser, *pipeline.text.modules)
        kept = (chain(module.parameters(), module.buffers()) for module in modules)
        weights = chain(*kept, pipeline.vae.parameters())
        for tensor in weights:
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype} {_sums(tensor)}".encode())
        return cls(musiva.__version__, torch.__version__.partition("+")[0], digest.hexdigest()[:16])

    def differs(self, other: Identity) -> str:
        """In what, both named; empty where it does not."""
        pairs = [
            (field.name, getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
        ]
        told = (f"{name} {ours}, not {theirs}" for name, ours, theirs in pairs if ours != theirs)
        return ", ".join(told)


def _sums(tensor: Tensor) -> tuple[int, int]:
    """Of the words of a tensor, and of every third one: exact, in any order, on any device."""
    flat = tensor.detach().contiguous().view(-1)
    whole = flat.numel() * flat.element_size() % 4 == 0 and flat.numel()
    words = flat.view(torch.int32 if whole else torch.uint8)
    return int(words.sum(dtype=torch.int64)), int(words[::3].sum(dtype=torch.int64))
