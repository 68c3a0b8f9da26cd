"""Latents to pictures: parts of an autoencoder one after the other, by all ranks of a group where
the picture can be had in strips, else by the first of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from musiva.comm import Group, in_threads
from musiva.core.types import DecodeItem
from musiva.engine.pipeline import Pipeline
from musiva.parallel import Strips, Unshared

__all__ = ["Decoding"]

log = logging.getLogger(__name__)
Parts = Sequence[Callable[[Any], Any]]
# Rows of a latent that a rank has at least: with fewer it asks others for longer than it decodes
# (over gloo, by measure).
LEAST = 32
# A side of the latent that is decoded to see whether strips give the picture, in positions; and by
# how much they may differ from it, of its largest number.
SIDE, CLOSE = 5, 1e-4


class Decoding:
    """Of samples, by one of the ranks of a group."""

    def __init__(self, pipeline: Pipeline, group: Group) -> None:
        self._pipeline, self._group = pipeline, group
        # Whether strips give what the whole does: of pictures, and of clips.
        self._tried: dict[bool, bool] = {}

    def advance(self, item: DecodeItem, latent: Tensor, before: Any) -> Any:
        """What comes of an item's parts: of the last one pixels, or None where another rank has
        them. before: of the parts before these, of which the first takes the latent.
        """
        strips = self._strips(latent, item.frames)
        parts = self._pipeline.decode_parts(item.frames)[item.first : item.last]
        if strips is None:
            if self._group.rank:
                return None
            return _through(parts, latent if before is None else before)
        with strips:
            x = _through(parts, strips.own(latent) if before is None else before)
        return x if item.last is not None else strips.whole(x)

    def _strips(self, latent: Tensor, frames: int) -> Strips | None:
        """Those of a latent; None where the first rank has all of it."""
        rows = latent.shape[-2]
        if self._group.size == 1 or rows < LEAST * self._group.size:
            return None
        if (frames > 1) not in self._tried:
            self._tried[frames > 1] = self._gives_the_picture(latent, frames)
        return Strips(self._group, rows) if self._tried[frames > 1] else None

    def _gives_the_picture(self, latent: Tensor, frames: int) -> bool:
        """Whether strips of a small latent do. Tried in this process, so that nobody waits for a
        rank that has failed; then all ranks agree.
        """
        size = self._group.size
        shape = (*latent.shape[:-2], SIDE * size - 1, SIDE)
        small = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(latent)
        try:
            whole = _through(self._pipeline.decode_parts(frames), small)
            found = in_threads(_in_strips, size, self._pipeline, small, frames)[0]
            error = float((found - whole).abs().max() / whole.abs().max().clamp(min=1.0))
        except Exception as reason:  # of any kind, from code that is not ours
            known = isinstance(reason, Unshared)
            log.info("the first rank decodes: %s", reason if known else repr(reason))
            error = float("inf")
        failed = self._group.sum(torch.tensor([float(not error < CLOSE)]))
        return not bool(failed)


def _through(parts: Parts, x: Any) -> Any:
    for part in parts:
        x = part(x)
    return x


@torch.inference_mode()
def _in_strips(group: Group, pipeline: Pipeline, latent: Tensor, frames: int) -> Tensor:
    # Some classes keep what they are about on their modules.
    weights = {id(one): one for one in pipeline.vae.parameters()}
    parts = replace(pipeline, vae=deepcopy(pipeline.vae, weights)).decode_parts(frames)
    strips = Strips(group, latent.shape[-2])
    with strips:
        found = _through(parts, strips.own(latent))
    return strips.whole(found)
