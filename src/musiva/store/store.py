"""The store: who holds which pages, under a byte budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from musiva.core.errors import InvalidInput, OverBudget
from musiva.store.entry import Entry, Kind, Need
from musiva.store.figures import Figures
from musiva.store.room import Holding, make_room, place
from musiva.store.space import Extent, Space

__all__ = ["Store"]


class Store:
    """Entries by (owner, site), on one device. Owners are whatever names a sample branch.

    An owner reserves first, and is then there until it is freed or evicted; what was evicted is
    simply absent, and the caller computes it again. Naming an entry that is not there raises
    KeyError.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """page_tokens: of a page. dtype: what floating-point features are kept in, None for as they
        come; others always are kept as they come.
        """

        budget_bytes: int
        page_tokens: int = 64
        dtype: torch.dtype | None = None
        device: torch.device | str = "cpu"

        def build(self) -> Store:
            """Raises InvalidInput for "budget_bytes" and "page_tokens"."""
            return Store(self)

    def __init__(self, config: Config) -> None:
        for name in ("budget_bytes", "page_tokens"):
            if getattr(config, name) < 1:
                raise InvalidInput(name, getattr(config, name), "a whole number of at least 1")
        self.config = config
        self._arena: Tensor | None = None
        self._slabs: dict[Kind, Tensor] = {}
        self._space = Space(config.budget_bytes)
        # The least recently touched one comes first.
        self._holdings: dict[Hashable, Holding] = {}
        self._pins: Counter[Hashable] = Counter()
        self._counts: Counter[str] = Counter()

    def __contains__(self, owner: Hashable) -> bool:
        """Whether it has its pages, written or not."""
        return owner in self._holdings

    @property
    def owners(self) -> tuple[Hashable, ...]:
        """Those that have their pages, the least recently touched one first."""
        return tuple(self._holdings)

    def missing(self, owner: Hashable) -> bool:
        """Whether some of it cannot be read, so that the caller has to compute it in full. Counted
        as a miss or a hit.
        """
        holding = self._holdings.get(owner)
        missing = holding is None or any(entry.unwritten for entry in holding.entries.values())
        self._counts["misses" if missing else "hits"] += 1
        return missing

    # Outside of inference mode, so that slabs and views can be written in and out of it.
    @torch.inference_mode(False)
    def reserve(self, owner: Hashable, needs: Mapping[str, Need], value: float) -> bool:
        """Whether the owner got pages for all of `needs`, by site. value: saved milliseconds times
        the probability of a hit. Others are evicted for it that are not pinned and worth less per
        byte; False if that is not enough, or if they are together worth as much as this one, and
        nothing has changed then. An owner that has its pages keeps them and what they hold, gets
        the value, and is touched.

        Raises OverBudget for more than an empty store could hold, ValueError for no needs or a
        value that is not finite or below 0, RuntimeError for an owner with pages for other needs.
        """
        _check_value(value)
        if owner in self._holdings:
            if self._needs(owner) != dict(needs):
                raise RuntimeError(f"{owner!r} has pages for other needs; free it first")
            self.revalue(owner, value)
            self.touch(owner)
            return True
        if not needs:
            raise ValueError(f"{owner!r} reserves nothing")
        kinds = {site: self._kind(need) for site, need in needs.items()}
        extents = {site: kinds[site].extent(need) for site, need in needs.items()}
        others = {name: one for name, one in self._holdings.items() if name not in self._pins}
        room = make_room(self._space, extents, value, others)
        if room is None:
            self._require_possible(owner, extents)
            self._counts["refused"] += 1
            return False
        entries = {
            site: Entry(need, kinds[site], room.pages[site], self._slab(kinds[site]))
            for site, need in needs.items()
        }
        for name in room.evicted:
            del self._holdings[name]
        self._counts["evictions"] += len(room.evicted)
        self._space = room.space
        num_bytes = sum(entry.num_bytes for entry in entries.values())
        self._holdings[owner] = Holding(entries, num_bytes, value)
        return True

    def write(
        self,
        owner: Hashable,
        site: str,
        values: Tensor | tuple[Tensor, ...],
        tokens_A: Tensor | None = None,
        *,
        version: int,
    ) -> None:
        """Keep the features of some tokens, or of all. values: [A, *feature] of the dtype that was
        reserved, on the store's device; or what that would be the stack of, along axis 1.
        tokens_A: [A] int64 on the host, canonical indices, rising. version: the evaluation that
        computed them, from 0.

        Raises ValueError for what does not fit the reservation; nothing is written then.
        """
        written = self._entry(owner, site).write(values, tokens_A, version)
        self._counts["written_bytes"] += written

    def mark(
        self, owner: Hashable, site: str, tokens_A: Tensor | None = None, *, version: int
    ) -> None:
        """Take note that a kernel has written these tokens, or all, into the pages of `page_table`,
        in the slab's dtype; otherwise as `write`.
        """
        written = self._entry(owner, site).mark(tokens_A, version)
        self._counts["written_bytes"] += written

    def read(self, owner: Hashable, site: str, dtype: torch.dtype | None = None) -> Tensor:
        """[L, *feature] in canonical order, in `dtype` or the one that was reserved. Without a copy
        where the pages are consecutive and kept in that dtype: a view that shows what is written
        later, and must not be changed, or used when the owner is gone.

        Raises RuntimeError before each token was written.
        """
        values_LF = self._entry(owner, site).read(dtype)
        self._counts["reads"] += 1
        return values_LF

    def versions(self, owner: Hashable, site: str) -> Tensor:
        """[L] int64 on the host: the evaluation that wrote each token, -1 for none yet."""
        return self._entry(owner, site).versions_L.clone()

    def ages(self, owner: Hashable, site: str, now: int) -> Tensor:
        """[N, 2] int64 on the host: of each page the age of its oldest and of its newest token, in
        evaluations before `now`. Raises RuntimeError before each token was written.
        """
        return self._entry(owner, site).ages(now)

    def page_table(self, owner: Hashable, site: str) -> Tensor:
        """[N] int64 on the store's device: where in `slab` the pages are, in token order."""
        return self._entry(owner, site).page_table_N

    def slab(self, owner: Hashable, site: str) -> Tensor:
        """[P, page_tokens, *feature]: the slab that an entry lies in, one for all entries of its
        kind. Only the pages of `page_table` mean anything.
        """
        return self._entry(owner, site).slab

    def revalue(self, owner: Hashable, value: float) -> None:
        """Raises ValueError unless the value is finite and at least 0."""
        _check_value(value)
        self._holding(owner).value = value

    def touch(self, owner: Hashable) -> None:
        """Of owners of equal worth, the least recently touched one goes first."""
        holding = self._holding(owner)
        del self._holdings[owner]
        self._holdings[owner] = holding

    @contextmanager
    def pin(self, owners: Iterable[Hashable]) -> Iterator[None]:
        """Inside the block none of them is evicted, also those that reserve in it. Blocks nest."""
        pinned = Counter(owners)
        self._pins += pinned
        try:
            yield
        finally:
            self._pins -= pinned

    def free(self, owner: Hashable) -> None:
        """Let go of an owner's pages, pinned or not; nothing if it is absent."""
        holding = self._holdings.pop(owner, None)
        if holding is not None:
            holding.give(self._space)

    def clear(self) -> None:
        """Free all owners, and give the memory back."""
        self._holdings.clear()
        self._slabs.clear()
        self._space, self._arena = Space(self.config.budget_bytes), None

    def figures(self) -> Figures:
        site_bytes: Counter[str] = Counter()
        for holding in self._holdings.values():
            for site, entry in holding.entries.items():
                site_bytes[site] += entry.num_bytes
        entries = [e for holding in self._holdings.values() for e in holding.entries.values()]
        return Figures(
            budget_bytes=self.config.budget_bytes,
            allocated_bytes=0 if self._arena is None else self._arena.nbytes,
            used_bytes=site_bytes.total(),
            largest_free_bytes=max((b - a for a, b in self._space.ranges), default=0),
            pages=sum(len(entry.pages) for entry in entries),
            owners=len(self._holdings),
            hits=self._counts["hits"],
            misses=self._counts["misses"],
            reads=self._counts["reads"],
            evictions=self._counts["evictions"],
            refused=self._counts["refused"],
            written_bytes=self._counts["written_bytes"],
            site_bytes=site_bytes,
        )

    def check_integrity(self) -> None:
        """Raise AssertionError unless every byte of the budget is free or in one page of one entry,
        and all that is said of owners, pages, slabs and versions fits together.
        """
        arena, budget = self._arena, self.config.budget_bytes
        assert self._space.size == budget, "pages are cut from more or less than the budget"
        assert arena is None or arena.nbytes == budget, "the arena is not as large as the budget"
        for kind, slab in self._slabs.items():
            assert arena is not None, "slabs without an arena"
            assert slab.data_ptr() == arena.data_ptr(), f"{kind}: a slab elsewhere"
            assert slab.nbytes == budget // kind.page_bytes * kind.page_bytes, f"{kind}: its size"
        taken = []
        for owner, holding in self._holdings.items():
            assert holding.entries, f"{owner!r} has no entries"
            assert 0 <= holding.value < math.inf, f"{owner!r}: its value is {holding.value}"
            for site, entry in holding.entries.items():
                where = f"{site!r} of {owner!r}"
                entry.check(where, self.config.page_tokens)
                assert entry.slab is self._slabs.get(entry.kind), f"{where}: another slab"
                taken += [(start, stop, where) for start, stop in entry.ranges]
            num_bytes = sum(entry.num_bytes for entry in holding.entries.values())
            assert holding.num_bytes == num_bytes, f"{owner!r}: {num_bytes} bytes"
        self._space.check(taken)
        assert all(count > 0 for count in self._pins.values()), "pins that hold nothing"

    def _needs(self, owner: Hashable) -> dict[str, Need]:
        return {site: entry.need for site, entry in self._holdings[owner].entries.items()}

    def _kind(self, need: Need) -> Kind:
        dtype = self.config.dtype
        if dtype is None or not need.dtype.is_floating_point:
            dtype = need.dtype
        return Kind(self.config.page_tokens, need.feature, dtype)

    def _require_possible(self, owner: Hashable, extents: Mapping[str, Extent]) -> None:
        budget = self.config.budget_bytes
        if place(Space(budget), extents) is not None:
            return
        # Pages of several sizes need bytes between them too, so the true end of the layout counts.
        unbounded = Space(sum(one.num_bytes + one.page_bytes for one in extents.values()))
        place(unbounded, extents)
        end = unbounded.ranges[-1][0]
        message = f"the pages of {owner!r} need {end:,} bytes; the budget is {budget:,} bytes"
        raise OverBudget(message)

    def _slab(self, kind: Kind) -> Tensor:
        if self._arena is None:
            size, device = self.config.budget_bytes, self.config.device
            self._arena = torch.empty(size, dtype=torch.uint8, device=device)
        if kind not in self._slabs:
            pages = self.config.budget_bytes // kind.page_bytes
            typed = self._arena[: pages * kind.page_bytes].view(kind.dtype)
            self._slabs[kind] = typed.view(pages, kind.page_tokens, *kind.feature)
        return self._slabs[kind]

    def _holding(self, owner: Hashable) -> Holding:
        if owner not in self._holdings:
            raise KeyError(f"{owner!r} is not in the store")
        return self._holdings[owner]

    def _entry(self, owner: Hashable, site: str) -> Entry:
        entries = self._holding(owner).entries
        if site not in entries:
            raise KeyError(f"{owner!r} has no pages at {site!r}")
        return entries[site]


def _check_value(value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"a value is finite and at least 0, not {value}")
