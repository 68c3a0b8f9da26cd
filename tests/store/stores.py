"""What tests of the store share."""

from __future__ import annotations

import torch
from torch import Tensor

from musiva.store import Need, Store

__all__ = ["PAGE", "need", "poison", "small_store", "values"]

# Bytes of a page of `need`: 4 tokens of 2 numbers in float32.
PAGE = 32


def need(num_tokens: int, feature: tuple[int, ...] = (2,), dtype=torch.float32) -> Need:
    return Need(num_tokens, feature, dtype)


def small_store(pages: int = 8, **fields) -> Store:
    """Room for some pages of `need`."""
    return Store.Config(budget_bytes=pages * PAGE, page_tokens=4, **fields).build()


def values(of: Need, seed: int = 0, tokens: int | None = None) -> Tensor:
    """Whole numbers that any dtype holds exactly."""
    shape = (of.num_tokens if tokens is None else tokens, *of.feature)
    numbers = torch.randint(0, 120, shape, generator=torch.Generator().manual_seed(seed))
    return numbers.to(of.dtype)


def poison(store: Store) -> None:
    """Fill what is free with NaN, and -1 where numbers are whole."""
    if store._arena is not None:
        for start, stop in store._space.ranges:
            store._arena[start:stop] = 0xFF
