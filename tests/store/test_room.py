"""Who gets room, who has to go, and who stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musiva.core.errors import OverBudget, Unavailable
from musiva.store import Store
from tests.store.stores import PAGE, need, poison, small_store, values


def reserve(store: Store, owner: str, pages: int, value: float) -> bool:
    return store.reserve(owner, {"kv": need(4 * pages)}, value)


def filled(owners: dict[str, tuple[int, float]]) -> Store:
    """A full store: of each owner its pages and its value."""
    store = small_store(sum(pages for pages, _ in owners.values()))
    for owner, (pages, value) in owners.items():
        assert reserve(store, owner, pages, value)
    return store


def test_the_least_valuable_per_byte_goes_first() -> None:
    store = filled({"a": (2, 6.0), "b": (4, 4.0), "c": (2, 8.0)})
    assert reserve(store, "new", 2, 9.0)
    assert set(store.owners) == {"a", "c", "new"}
    store.check_integrity()


def test_an_owner_goes_whole() -> None:
    store = small_store(4)
    assert store.reserve("x", {"a": need(4), "b": need(4), "c": need(4)}, 1.0)
    assert reserve(store, "new", 2, 2.0)
    assert store.owners == ("new",)
    assert store.figures().pages == 2
    store.check_integrity()


def test_nobody_goes_who_is_worth_as_much_or_pinned_or_not_in_the_way() -> None:
    store = filled({"a": (2, 2.0), "b": (2, 3.0)})
    assert not reserve(store, "new", 2, 2.0)
    assert not reserve(store, "new", 3, 4.0)
    with store.pin(["a"]):
        assert not reserve(store, "new", 2, 2.5)
        assert reserve(store, "new", 2, 4.0)
        assert set(store.owners) == {"a", "new"}
    assert store.figures().refused == 3
    store.free("new")
    assert reserve(store, "tiny", 1, 0.0)
    assert set(store.owners) == {"a", "tiny"}
    store.check_integrity()


def test_equals_per_byte_stay_whatever_they_are_worth_together() -> None:
    store = filled({"a": (2, 2.0), "gap": (1, 0.0)})
    store.free("gap")
    assert not reserve(store, "new", 3, 3.0)
    assert reserve(store, "new", 3, 3.1)


def test_those_in_the_way_are_not_worth_more_together() -> None:
    # Per byte the newcomer is worth four times as much; in total, less.
    store = filled({"large": (8, 8.0)})
    assert not reserve(store, "small", 1, 4.0)
    assert reserve(store, "small", 1, 8.5)
    assert store.owners == ("small",)


def test_only_those_go_who_have_to() -> None:
    store = filled({"a": (1, 1.0), "b": (1, 1.5), "c": (4, 8.0), "d": (2, 20.0)})
    assert reserve(store, "new", 4, 12.0)
    assert set(store.owners) == {"a", "b", "d", "new"}
    store.check_integrity()


def test_of_equals_the_least_recently_touched_goes_first() -> None:
    store = filled({"a": (2, 2.0), "b": (2, 2.0), "c": (2, 2.0)})
    store.touch("a")
    assert store.owners == ("b", "c", "a")
    assert reserve(store, "b", 2, 2.0)
    assert store.owners == ("c", "a", "b")
    assert reserve(store, "new", 2, 3.0)
    assert store.owners == ("a", "b", "new")


def test_a_new_value_counts() -> None:
    store = filled({"a": (2, 2.0), "b": (2, 3.0)})
    store.revalue("a", 9.0)
    assert reserve(store, "b", 2, 4.0)
    assert not reserve(store, "new", 2, 4.0)
    assert reserve(store, "new", 2, 5.0)
    assert set(store.owners) == {"a", "new"}


def test_pins_nest_and_hold_those_who_come_later() -> None:
    store = small_store(4)
    with store.pin(["a", "b"]):
        assert reserve(store, "a", 2, 1.0)
        with store.pin(iter(["a", "a"])):
            assert reserve(store, "b", 2, 1.0)
        store.check_integrity()
        assert not reserve(store, "new", 2, 9.0)
        with pytest.raises(ZeroDivisionError), store.pin(["a"]):
            _ = 1 / 0
        assert not reserve(store, "new", 2, 9.0)
        store.free("a")
        assert "a" not in store
    assert reserve(store, "new", 4, 9.0)
    store.check_integrity()


def test_whoever_has_pages_keeps_them() -> None:
    store = filled({"x": (2, 2.0), "y": (2, 1.0)})
    store.write("x", "kv", values(need(8)), version=0)
    assert reserve(store, "x", 2, 1.5)
    assert not store.missing("x")
    assert store.owners == ("y", "x")
    for other in ({"kv": need(7)}, {"kv": need(8), "b": need(1)}, {"b": need(8)}, {}):
        with pytest.raises(RuntimeError, match="'x' has pages for other needs"):
            store.reserve("x", other, 1.0)
    assert not reserve(store, "new", 2, 1.0)
    assert reserve(store, "new", 4, 3.2)
    assert store.owners == ("new",)


def test_more_than_the_budget_is_an_error_whoever_goes() -> None:
    store = filled({"a": (4, 1.0)})
    told = "the pages of 'new' need 160 bytes; the budget is 128 bytes"
    with pytest.raises(OverBudget, match=told) as caught:
        reserve(store, "new", 5, 99.0)
    assert isinstance(caught.value, Unavailable)
    assert store.owners == ("a",)
    assert store.figures().refused == 0
    # 4 pages of 24 bytes begin behind one of 32, at a multiple of 24.
    with pytest.raises(OverBudget, match="need 144 bytes; the budget is 128 bytes"):
        store.reserve("new", {"a": need(4), "b": need(16, (3,), torch.float16)}, 99.0)
    store.check_integrity()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_value_is_finite_and_at_least_0(value: float) -> None:
    store = filled({"a": (1, 1.0)})
    for owner in ("a", "new"):
        with pytest.raises(ValueError, match="a value is finite and at least 0"):
            reserve(store, owner, 1, value)
    with pytest.raises(ValueError, match="a value is finite and at least 0"):
        store.revalue("a", value)
    with pytest.raises(ValueError, match="'new' reserves nothing"):
        store.reserve("new", {}, 1.0)
    store.check_integrity()


def test_bytes_of_one_kind_serve_another() -> None:
    store = small_store(6)
    assert store.reserve("x", {"kv": need(24)}, 1.0)
    store.free("x")
    wide = need(8, (6,))
    assert store.reserve("y", {"kv": wide}, 1.0)
    store.write("y", "kv", values(wide), version=0)
    assert not store.reserve("x", {"kv": need(4)}, 1.0)
    assert store.reserve("x", {"kv": need(4)}, 1.1)
    assert store.owners == ("x",)
    store.check_integrity()


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(32)), st.integers(1, 3))
def test_of_four_times_the_budget_the_most_valuable_stay(order, pages: int) -> None:
    store = small_store(8 * pages)
    for value in order:
        if reserve(store, f"owner {value}", pages, float(value)):
            store.write(f"owner {value}", "kv", values(need(4 * pages), value), version=value)
        poison(store)
        store.check_integrity()
        figures = store.figures()
        assert figures.used_bytes <= figures.allocated_bytes <= figures.budget_bytes
    assert set(store.owners) == {f"owner {value}" for value in range(24, 32)}
    for value in range(24, 32):
        assert f"owner {value}" in store
        read = store.read(f"owner {value}", "kv")
        assert (read == values(need(4 * pages), value)).all()
    assert store.figures().used_bytes == 8 * pages * PAGE


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 30)), min_size=1, max_size=30))
def test_evictions_raise_the_value_that_is_kept(owners) -> None:
    store, kept = small_store(8), {}
    for owner, (pages, value) in enumerate(owners):
        before = sum(value for _, value in kept.values())
        room = 8 - sum(pages for pages, _ in kept.values())
        lesser = sorted((v / p, v, p) for p, v in kept.values() if v / p < value / pages)
        took = store.reserve(owner, {"kv": need(4 * pages)}, float(value))
        gone = {name: kept.pop(name) for name in list(kept) if name not in store}
        assert took == (owner in store)
        if pages <= room:
            assert took
            assert not gone
        if room + sum(p for *_, p in lesser) < pages:
            assert not took
        if not took:
            assert not gone
            continue
        kept[owner] = (pages, value)
        after = sum(value for _, value in kept.values())
        assert after > before if gone else after == before + value
        assert all(v / p < value / pages for p, v in gone.values())
        # Nobody went in vain.
        freed = sum(p for p, _ in gone.values())
        assert all(room + freed - p < pages for p, _ in gone.values())
        store.check_integrity()
