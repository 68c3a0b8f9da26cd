"""What is written is read again, byte for byte, or it is said to be absent."""

from __future__ import annotations

import pytest
import torch

from musiva.core.errors import InvalidInput
from musiva.store import Need, Store
from tests.store.stores import PAGE, need, poison, small_store, values


def inside(store: Store, x: torch.Tensor) -> bool:
    """Whether a tensor lies in the store's memory."""
    assert store._arena is not None
    start = store._arena.data_ptr()
    return start <= x.data_ptr() < start + store._arena.nbytes


def scattered_store() -> Store:
    """Where "x" has the pages 0, 2 and 4 of 8, and holds `values(need(11))`."""
    store = small_store()
    for i in range(8):
        assert store.reserve(i, {"kv": need(4)}, 1.0)
    for i in (0, 2, 4):
        store.free(i)
    poison(store)
    assert store.reserve("x", {"kv": need(11)}, 1.0)
    store.write("x", "kv", values(need(11)), version=0)
    return store


@pytest.mark.parametrize(
    ("feature", "dtype"),
    [
        ((2, 3, 5), torch.float32),
        ((7,), torch.bfloat16),
        ((), torch.float64),
        ((3,), torch.float16),
        ((2,), torch.int64),
        ((3,), torch.bool),
    ],
)
@pytest.mark.parametrize("length", [1, 4, 11])
def test_what_is_written_is_read(feature, dtype, length: int) -> None:
    store = Store.Config(budget_bytes=10_000, page_tokens=4).build()
    one = need(length, feature, dtype)
    assert store.reserve("x", {"kv": one, "other": one}, 1.0)
    poison(store)
    store.write("x", "kv", values(one, 1), version=0)
    store.write("x", "other", values(one, 2), version=0)
    for site, seed in (("kv", 1), ("other", 2)):
        read = store.read("x", site)
        assert read.dtype == dtype
        assert torch.equal(read, values(one, seed))
        assert inside(store, read)
        assert read.is_contiguous()
    store.check_integrity()


def test_every_bit_is_kept() -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800001, 1, -(2**31), -1, 0, 0x7F800000, 42])
    odd = bits.to(torch.int32).view(torch.float32).view(4, 2)
    store = small_store()
    assert store.reserve("x", {"kv": need(4)}, 1.0)
    store.write("x", "kv", odd, version=0)
    assert torch.equal(store.read("x", "kv").view(torch.int32), odd.view(torch.int32))
    store.write("x", "kv", odd[1:3].flip(0), torch.tensor([1, 2]), version=1)
    swapped = odd[[0, 2, 1, 3]].view(torch.int32)
    assert torch.equal(store.read("x", "kv").view(torch.int32), swapped)


def test_values_that_are_views_are_written() -> None:
    store, one = small_store(), need(6)
    assert store.reserve("x", {"kv": one}, 1.0)
    turned = values(need(2, (6,))).T
    assert not turned.is_contiguous()
    store.write("x", "kv", turned, version=0)
    assert torch.equal(store.read("x", "kv"), turned)


def test_some_tokens_are_written_and_the_others_stay() -> None:
    for store, first in ((small_store(), 0), (scattered_store(), 1)):
        one, expected = need(11), values(need(11))
        if first == 0:
            assert store.reserve("x", {"kv": one}, 1.0)
            store.write("x", "kv", expected, version=0)
        for tokens, seed in (([0, 3, 4, 10], 5), ([], 6), ([7], 7), (list(range(11)), 8)):
            chosen = torch.tensor(tokens, dtype=torch.int64)
            part = values(one, seed, len(tokens))
            store.write("x", "kv", part, chosen, version=seed)
            expected[chosen] = part
            assert torch.equal(store.read("x", "kv"), expected)
            store.check_integrity()


def test_parts_are_written_side_by_side() -> None:
    one, store = need(11, (2, 3)), Store.Config(budget_bytes=10_000, page_tokens=4).build()
    for i in range(6):
        assert store.reserve(i, {"kv": need(4, (2, 3))}, 1.0)
    store.free(0)
    store.free(2)
    for owner in ("scattered", "consecutive"):
        assert store.reserve(owner, {"kv": one}, 1.0)
        expected = values(one, 1)
        store.write(owner, "kv", expected.unbind(1), version=0)
        assert torch.equal(store.read(owner, "kv"), expected)
        part, chosen = values(one, 2, 3), torch.tensor([0, 4, 10])
        store.write(owner, "kv", part.unbind(1), chosen, version=1)
        expected[chosen] = part
        assert torch.equal(store.read(owner, "kv"), expected)
    first, second = values(one).unbind(1)
    for wrong in ((first,), (first, second[:, :2]), (first, second.double())):
        with pytest.raises(ValueError, match="values have to be"):
            store.write("scattered", "kv", wrong, version=2)
    store.check_integrity()


def test_an_entry_is_read_only_after_each_token_was_written() -> None:
    store, one = small_store(), need(6)
    assert store.reserve("x", {"kv": one, "b": one}, 1.0)
    for tokens, left in (([0, 1, 2], 3), ([2, 4], 2), ([3], 1)):
        for ask in (lambda: store.read("x", "kv"), lambda: store.ages("x", "kv", 3)):
            with pytest.raises(RuntimeError, match="tokens were never written"):
                ask()
        part = values(one, tokens=len(tokens))
        store.write("x", "kv", part, torch.tensor(tokens), version=3)
        with pytest.raises(RuntimeError, match=f"{left} of 6 tokens were never written"):
            store.read("x", "kv")
    assert store.versions("x", "kv").tolist() == [3, 3, 3, 3, 3, -1]
    store.write("x", "kv", values(one, tokens=1), torch.tensor([5]), version=3)
    assert store.read("x", "kv").shape == (6, 2)
    assert store.missing("x")
    store.write("x", "b", values(one), version=0)
    assert not store.missing("x")


def test_what_an_owner_left_behind_is_not_read() -> None:
    store, one = small_store(), need(8)
    assert store.reserve("x", {"kv": one}, 1.0)
    store.write("x", "kv", values(one, 1), version=0)
    store.free("x")
    assert store.reserve("x", {"kv": one}, 1.0)
    assert store.missing("x")
    with pytest.raises(RuntimeError, match="8 of 8 tokens"):
        store.read("x", "kv")
    assert store.versions("x", "kv").tolist() == [-1] * 8


def test_a_read_without_a_copy_shows_later_writes() -> None:
    store, one = small_store(), need(6)
    assert store.reserve("x", {"kv": one}, 1.0)
    store.write("x", "kv", values(one, 1), version=0)
    read = store.read("x", "kv")
    store.write("x", "kv", values(one, 2), version=1)
    assert torch.equal(read, values(one, 2))


def test_scattered_pages_are_read_in_token_order() -> None:
    store = scattered_store()
    read = store.read("x", "kv")
    assert torch.equal(read, values(need(11)))
    assert not inside(store, read)
    assert store.page_table("x", "kv").tolist() == [0, 2, 4]
    store.check_integrity()


@pytest.mark.parametrize("make", [small_store, scattered_store])
def test_a_kernel_finds_the_tokens_by_page_table_and_slab(make) -> None:
    store = make()
    if "x" not in store:
        assert store.reserve("before", {"kv": need(3)}, 1.0)
        assert store.reserve("x", {"kv": need(11)}, 1.0)
        store.write("x", "kv", values(need(11)), version=0)
    slab, table = store.slab("x", "kv"), store.page_table("x", "kv")
    assert slab.shape == (8, 4, 2)
    assert table.dtype == torch.int64
    assert torch.equal(slab[table].flatten(0, 1)[:11], values(need(11)))
    assert inside(store, slab)


def test_what_a_kernel_wrote_is_read_once_it_is_marked() -> None:
    store, one = small_store(), need(6)
    assert store.reserve("before", {"kv": need(3)}, 1.0)
    assert store.reserve("x", {"kv": one}, 1.0)
    expected, table = values(one), store.page_table("x", "kv")
    for tokens in (torch.tensor([0, 1, 5]), torch.tensor([2, 3, 4])):
        with pytest.raises(RuntimeError, match="never written"):
            store.read("x", "kv")
        store.slab("x", "kv")[table[tokens // 4], tokens % 4] = expected[tokens]
        store.mark("x", "kv", tokens, version=len(tokens))
    assert torch.equal(store.read("x", "kv"), expected)
    store.mark("x", "kv", version=7)
    assert store.versions("x", "kv").tolist() == [7] * 6
    assert store.figures().written_bytes == 12 * 8
    for tokens, version in ((torch.tensor([6]), 8), (None, -1)):
        with pytest.raises(ValueError, match=r"have to rise|is at least 0"):
            store.mark("x", "kv", tokens, version=version)
    store.check_integrity()


def test_entries_of_a_kind_share_a_slab_and_other_kinds_the_memory() -> None:
    store = small_store()
    assert store.reserve("x", {"a": need(4), "b": need(4, (4,)), "c": need(4)}, 1.0)
    assert store.slab("x", "a") is store.slab("x", "c")
    assert store.slab("x", "b").shape == (4, 4, 4)
    assert store.slab("x", "b").data_ptr() == store.slab("x", "a").data_ptr()
    store.check_integrity()


def test_every_token_has_a_version_and_every_page_two_ages() -> None:
    store, one = small_store(), need(10)
    assert store.reserve("x", {"kv": one}, 1.0)
    store.write("x", "kv", values(one), version=2)
    store.write("x", "kv", values(one, tokens=2), torch.tensor([1, 9]), version=5)
    versions = store.versions("x", "kv")
    assert versions.tolist() == [2, 5, 2, 2, 2, 2, 2, 2, 2, 5]
    assert store.ages("x", "kv", now=6).tolist() == [[4, 1], [4, 4], [4, 1]]
    versions.zero_()
    assert store.versions("x", "kv").amax() == 5
    store.write("x", "kv", values(one, tokens=1), torch.tensor([8]), version=6)
    assert store.ages("x", "kv", now=6).tolist() == [[4, 1], [4, 4], [1, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float64])
@pytest.mark.parametrize("tokens", [None, list(range(11)), [2, 5]])
@pytest.mark.parametrize("scattered", [False, True])
def test_features_are_kept_in_the_storage_dtype(dtype, tokens, scattered: bool) -> None:
    one = need(11)
    page_bytes = 8 * dtype.itemsize
    store = Store.Config(budget_bytes=8 * page_bytes, page_tokens=4, dtype=dtype).build()
    if scattered:
        for i in range(8):
            assert store.reserve(i, {"kv": need(4)}, 1.0)
        for i in (1, 4, 6):
            store.free(i)
    assert store.reserve("x", {"kv": one}, 1.0)
    expected = torch.randn(11, 2, generator=torch.Generator().manual_seed(0))
    store.write("x", "kv", expected, version=0)
    if tokens is not None:
        chosen = torch.tensor(tokens)
        part = torch.randn(len(tokens), 2, generator=torch.Generator().manual_seed(1))
        store.write("x", "kv", part, chosen, version=1)
        expected[chosen] = part
    kept = expected.to(dtype)
    assert store.slab("x", "kv").dtype == dtype
    assert torch.equal(store.read("x", "kv"), kept.float())
    assert store.read("x", "kv").dtype == torch.float32
    raw = store.read("x", "kv", dtype)
    assert torch.equal(raw.double(), kept.double())
    assert inside(store, raw) == (not scattered)
    assert store.read("x", "kv", torch.float16).dtype == torch.float16
    assert store.figures().written_bytes == (11 + len(tokens or [])) * 2 * dtype.itemsize
    store.check_integrity()


def test_whole_numbers_are_kept_as_they_come() -> None:
    store = small_store(pages=64, dtype=torch.bfloat16)
    one = need(5, (), torch.int64)
    assert store.reserve("x", {"index": one}, 1.0)
    big = torch.tensor([2**40 + 1, 3, -7, 2**62, 0])
    store.write("x", "index", big, version=0)
    assert torch.equal(store.read("x", "index"), big)


def test_what_does_not_fit_the_reservation_is_refused_and_nothing_written() -> None:
    store, one = small_store(), need(6)
    assert store.reserve("x", {"kv": one}, 1.0)
    store.write("x", "kv", values(one), version=4)
    bad = [
        (values(need(5)), None, 5, "values have to be"),
        (values(need(6, (3,))), None, 5, "values have to be"),
        (values(need(6, dtype=torch.float64)), None, 5, "values have to be"),
        (values(one).to("meta"), None, 5, "values have to be"),
        (values(one), torch.tensor([1, 2]), 5, "values have to be"),
        (values(one), None, -1, "a version is at least 0, not -1"),
        (values(one, tokens=2), torch.tensor([2, 2]), 5, "tokens have to rise, from 0 to 5"),
        (values(one, tokens=2), torch.tensor([3, 2]), 5, "tokens have to rise, from 0 to 5"),
        (values(one, tokens=2), torch.tensor([-1, 2]), 5, "tokens have to rise, from 0 to 5"),
        (values(one, tokens=2), torch.tensor([3, 6]), 5, "tokens have to rise, from 0 to 5"),
        (values(one, tokens=2), torch.tensor([1, 2]).int(), 5, "one row of int64 on the host"),
        (values(one, tokens=2), torch.tensor([[1, 2]]), 5, "one row of int64 on the host"),
        (values(one, tokens=2), torch.tensor([1, 2]).to("meta"), 5, "int64 on the host"),
    ]
    for given, tokens, version, told in bad:
        with pytest.raises(ValueError, match=told):
            store.write("x", "kv", given, tokens, version=version)
    assert torch.equal(store.read("x", "kv"), values(one))
    assert store.versions("x", "kv").unique().tolist() == [4]
    store.check_integrity()


def test_what_is_absent_raises_and_can_be_asked_for() -> None:
    store, one = small_store(), need(6)
    assert "x" not in store
    assert store.missing("x")
    asks = [
        lambda: store.read("x", "kv"),
        lambda: store.write("x", "kv", values(one), version=0),
        lambda: store.mark("x", "kv", version=0),
        lambda: store.versions("x", "kv"),
        lambda: store.ages("x", "kv", 0),
        lambda: store.page_table("x", "kv"),
        lambda: store.slab("x", "kv"),
        lambda: store.revalue("x", 1.0),
        lambda: store.touch("x"),
    ]
    for ask in asks:
        with pytest.raises(KeyError, match="'x' is not in the store"):
            ask()
    store.free("x")
    assert store.reserve("x", {"kv": one}, 1.0)
    assert "x" in store
    with pytest.raises(KeyError, match="'x' has no pages at 'other'"):
        store.read("x", "other")
    assert store.missing("x")


def test_gradients_and_inference_mode_leave_no_trace() -> None:
    store, one = small_store(), need(6)
    with torch.inference_mode():
        assert store.reserve("x", {"kv": one}, 1.0)
        store.write("x", "kv", values(one), version=0)
        inferred = store.read("x", "kv")
    weight = torch.ones(6, 2, requires_grad=True)
    store.write("x", "kv", weight * 3, version=1)
    store.write("x", "kv", (weight * 2)[:1], torch.tensor([4]), version=2)
    assert not store.read("x", "kv").requires_grad
    assert inferred.tolist() == [[3, 3]] * 4 + [[2, 2], [3, 3]]
    with torch.inference_mode():
        store.write("x", "kv", values(one), version=3)
        store.write("x", "kv", values(one)[:1], torch.tensor([0]), version=3)
    assert torch.equal(store.read("x", "kv") * weight, values(one))


def test_free_and_clear_give_everything_back() -> None:
    store, one = small_store(), need(6)
    assert store.figures().allocated_bytes == 0
    for owner in ("x", "y"):
        assert store.reserve(owner, {"kv": one}, 1.0)
    assert store.owners == ("x", "y")
    store.free("x")
    assert store.owners == ("y",)
    store.check_integrity()
    assert store.figures().used_bytes == 2 * PAGE
    store.clear()
    store.check_integrity()
    assert store.owners == ()
    figures = store.figures()
    assert (figures.allocated_bytes, figures.used_bytes, figures.pages) == (0, 0, 0)
    assert store.reserve("y", {"kv": need(32)}, 1.0)
    store.check_integrity()


def test_figures_count() -> None:
    store = small_store(pages=6)
    assert store.reserve("x", {"a": need(6), "b": need(4)}, 3.0)
    store.write("x", "a", values(need(6)), version=0)
    assert store.missing("x")
    store.write("x", "b", values(need(4)), version=0)
    store.write("x", "b", values(need(1)), torch.tensor([2]), version=1)
    assert not store.missing("x")
    store.read("x", "a")
    store.read("x", "b")
    assert not store.reserve("y", {"a": need(16)}, 2.0)
    assert store.reserve("z", {"a": need(16)}, 9.0)
    assert store.missing("x")
    figures = store.figures()
    assert figures.budget_bytes == figures.allocated_bytes == 6 * PAGE
    assert figures.used_bytes == 4 * PAGE
    assert figures.free_bytes == figures.largest_free_bytes == 2 * PAGE
    assert (figures.pages, figures.owners) == (4, 1)
    assert (figures.hits, figures.misses, figures.reads) == (1, 2, 2)
    assert (figures.evictions, figures.refused) == (1, 1)
    assert figures.written_bytes == (6 + 4 + 1) * 8
    assert figures.site_bytes == {"a": 4 * PAGE}


@pytest.mark.parametrize("field", ["budget_bytes", "page_tokens"])
def test_sizes_below_one_are_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match=f"{field}: got 0; allowed: a whole number of at least"):
        Store.Config(**{"budget_bytes": 1, "page_tokens": 1, field: 0}).build()


@pytest.mark.parametrize("sizes", [(0, (2,)), (3, (2, 0)), (-1, ())])
def test_needs_of_nothing_are_refused(sizes) -> None:
    with pytest.raises(ValueError, match="has to be at least 1"):
        Need(*sizes, torch.float32)


@pytest.mark.gpu
def test_a_store_on_a_gpu() -> None:
    store, one = small_store(device="cuda", dtype=torch.bfloat16), need(11)
    for i in range(8):
        assert store.reserve(i, {"kv": one if i == 0 else need(4)}, 1.0)
    for i in (0, 4, 6):
        store.free(i)
    for owner in ("consecutive", "scattered"):
        assert store.reserve(owner, {"kv": one}, 1.0)
        expected = values(one).cuda()
        store.write(owner, "kv", expected, version=0)
        store.write(owner, "kv", expected[:2] + 1, torch.tensor([3, 8]), version=1)
        expected[[3, 8]] = expected[:2] + 1
        assert torch.equal(store.read(owner, "kv"), expected)
        assert store.page_table(owner, "kv").is_cuda
        assert inside(store, store.read(owner, "kv", torch.bfloat16)) == (owner == "consecutive")
    store.check_integrity()
