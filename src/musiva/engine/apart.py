"""Items that a model refuses at their size, and another denoiser takes on whole samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from musiva.core.types import DenoiseItem
from musiva.engine.gate import passages_of

__all__ = ["divided", "in_full"]


def divided(
    items: Sequence[DenoiseItem], refused: Collection[int]
) -> tuple[list[DenoiseItem], list[DenoiseItem]]:
    """Those that can run together, and those of which a branch is refused. refused: places of
    branches in the pack of all items.
    """
    found: tuple[list[DenoiseItem], list[DenoiseItem]] = [], []
    for passage in passages_of(items):
        found[any(place in refused for place in passage.places)].append(passage.item)
    return found


def in_full(item: DenoiseItem) -> DenoiseItem:
    """The item with all tiles, together, and nothing held."""
    action = replace(item.actions[-1], tiles=None, gate=None, held=None, patches=1)
    return replace(item, actions=(*item.actions[:-1], action))
