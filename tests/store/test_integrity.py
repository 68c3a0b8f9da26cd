"""Whatever goes wrong inside a store, check_integrity() finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from musiva.store import Store
from musiva.store.space import Space
from tests.store.stores import PAGE, need, small_store, values


@pytest.fixture
def store() -> Store:
    """Of 8 pages the first and the last are free; two tokens of "y" were never written."""
    store = small_store()
    for owner in ("gap", "x", "y"):
        sites = {"gap": 4, "x": 11, "y": 4}
        assert store.reserve(owner, {"kv": need(sites[owner])}, 1.0)
    store.free("gap")
    assert store.reserve("z", {"kv": need(8)}, 1.0)
    for owner in ("x", "z"):
        store.write(owner, "kv", values(entry(store, owner).need), version=0)
    store.write("y", "kv", values(need(2)), torch.tensor([1, 2]), version=0)
    store.check_integrity()
    assert (pages(store, "x"), pages(store, "y"), pages(store, "z")) == ((1, 2, 3), (4,), (5, 6))
    return store


@pytest.fixture
def scattered(store: Store) -> Store:
    """The same, with "z" on the first page and the last."""
    store.free("z")
    assert store.reserve("w", {"kv": need(8)}, 1.0)
    assert store.reserve("z", {"kv": need(8)}, 1.0)
    assert pages(store, "z") == (0, 7)
    store.write("z", "kv", values(need(8)), version=0)
    store.check_integrity()
    return store


def entry(store: Store, owner: str):
    return store._holdings[owner].entries["kv"]


def pages(store: Store, owner: str) -> tuple[int, ...]:
    return entry(store, owner).pages


def set_pages(store: Store, owner: str, numbers: tuple[int, ...]) -> None:
    """As if it had got these in truth."""
    one = entry(store, owner)
    made = type(one)(one.need, one.kind, numbers, one.slab)
    made.versions_L, made.unwritten = one.versions_L, one.unwritten
    store._holdings[owner].entries["kv"] = made


def set_entry(store: Store, owner: str, **fields: object) -> None:
    for name, value in fields.items():
        setattr(entry(store, owner), name, value)


def set_holding(store: Store, owner: str, **fields: object) -> None:
    for name, value in fields.items():
        setattr(store._holdings[owner], name, value)


def set_space(store: Store, *free: tuple[int, int]) -> None:
    store._space._free = list(free)


BROKEN: dict[str, Callable[[Store], object]] = {
    "belong to no one and to 'kv' of 'x'": lambda s: set_space(s, (0, 2 * PAGE), (224, 256)),
    "bytes 0 to 32 are lost": lambda s: set_space(s, (224, 256)),
    "end at 224, the arena at 256": lambda s: set_space(s, (0, 32)),
    "free ranges meet": lambda s: set_space(s, (0, 16), (16, 32), (224, 256)),
    "belong to 'kv' of 'x' and to 'kv' of 'y'": lambda s: set_pages(s, "y", (3,)),
    "'kv' of 'x': pages do not rise": lambda s: set_pages(s, "x", (1, 1, 2)),
    "'kv' of 'y': pages outside of the slab": lambda s: set_entry(s, "y", pages=(9,)),
    "'kv' of 'x': 2 pages for Need": lambda s: set_pages(s, "x", (1, 2)),
    "'kv' of 'y': a page table of other pages": lambda s: set_entry(s, "y", pages=(0,)),
    "'kv' of 'y': neither a view nor rows": lambda s: set_entry(s, "y", view_LF=None),
    "'kv' of 'y': a view of other pages": lambda s: set_entry(
        s, "y", view_LF=entry(s, "x").view_LF
    ),
    "'kv' of 'y': a view of other tokens": lambda s: set_entry(
        s, "y", view_LF=entry(s, "y").view_LF[:3]
    ),
    "'kv' of 'y': a slab of another dtype": lambda s: set_entry(
        s, "y", slab=entry(s, "y").slab.view(torch.int32)
    ),
    "'kv' of 'y': a slab of another shape": lambda s: set_entry(
        s, "y", slab=entry(s, "y").slab.flatten(0, 1)
    ),
    "'kv' of 'x': another slab": lambda s: s._slabs.update(
        {entry(s, "y").kind: entry(s, "y").slab[:]}
    ),
    "'kv' of 'y': pages of another size": lambda s: set_entry(
        s, "y", kind=replace(entry(s, "y").kind, page_tokens=5)
    ),
    "'kv' of 'y': pages of another feature": lambda s: set_entry(
        s, "y", kind=replace(entry(s, "y").kind, feature=(3,))
    ),
    "'kv' of 'y': not one version a token": lambda s: set_entry(
        s, "y", versions_L=torch.tensor([0, 0])
    ),
    "'kv' of 'y': 2 tokens wait, not 0": lambda s: set_entry(s, "y", unwritten=0),
    "'kv' of 'x': 1 tokens wait, not 0": lambda s: entry(s, "x").versions_L.__setitem__(3, -1),
    "'kv' of 'x': versions below": lambda s: entry(s, "x").versions_L.__setitem__(3, -2),
    "'x' has no entries": lambda s: set_holding(s, "x", entries={}, num_bytes=0),
    "'x': 96 bytes": lambda s: set_holding(s, "x", num_bytes=95),
    "'x': its value is -1": lambda s: set_holding(s, "x", value=-1),
    "'x': its value is nan": lambda s: set_holding(s, "x", value=float("nan")),
    "the arena is not as large": lambda s: setattr(s, "_arena", torch.zeros(257).byte()),
    "a slab elsewhere": lambda s: setattr(s, "_arena", torch.zeros(256).byte()),
    "slabs without an arena": lambda s: setattr(s, "_arena", None),
    "its size": lambda s: s._slabs.update({entry(s, "y").kind: entry(s, "y").slab[:7]}),
    "from more or less than the budget": lambda s: setattr(s, "_space", Space(257)),
    "pins that hold nothing": lambda s: s._pins.update({"x": 0}),
}


@pytest.mark.parametrize("told", BROKEN)
def test_what_is_broken_is_found(store: Store, told: str) -> None:
    BROKEN[told](store)
    with pytest.raises(AssertionError, match=told):
        store.check_integrity()


def test_broken_rows_of_scattered_pages_are_found(scattered: Store) -> None:
    one = entry(scattered, "z")
    assert one.rows_L is not None
    one.rows_L = one.rows_L.flip(0)
    with pytest.raises(AssertionError, match="'kv' of 'z': rows of other tokens"):
        scattered.check_integrity()
    one.rows_L, one.view_LF = None, one.slab.flatten(0, 1)[:8]
    with pytest.raises(AssertionError, match="'kv' of 'z': a view of scattered pages"):
        scattered.check_integrity()
