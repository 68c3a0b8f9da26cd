"""Whatever is done to a store, it agrees with a dict of tensors, and its memory is sound."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from torch import Tensor

from musiva.core.errors import OverBudget
from musiva.store import Need, Store
from tests.store.stores import poison, values

BUDGET = 1000
OWNERS = st.sampled_from(["a", "b", "c", ("d", 0), ("d", 1)])
SITES = ("k", "m", "n")
KINDS = [((3,), torch.float32), ((2, 2), torch.bfloat16), ((), torch.int64), ((5,), torch.float16)]
NEEDS = st.dictionaries(
    st.sampled_from(SITES),
    st.builds(lambda n, kind: Need(n, *kind), st.integers(1, 11), st.sampled_from(KINDS)),
    min_size=1,
)
SEEDS = st.integers(0, 1000)


@dataclass
class Plain:
    """An owner as a test sees it: without pages."""

    needs: dict[str, Need]
    value: float
    values: dict[str, Tensor] = field(default_factory=dict)
    versions: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site, need in self.needs.items():
            self.values[site] = values(need)
            self.versions[site] = torch.full((need.num_tokens,), -1)

    @property
    def written(self) -> bool:
        return all((versions >= 0).all() for versions in self.versions.values())


class StoreStates(RuleBasedStateMachine):
    @initialize(dtype=st.sampled_from([None, torch.float32]), page_tokens=st.integers(1, 5))
    def build(self, dtype: torch.dtype | None, page_tokens: int) -> None:
        config = Store.Config(budget_bytes=BUDGET, page_tokens=page_tokens, dtype=dtype)
        self.store, self.dtype, self.page_tokens = config.build(), dtype, page_tokens
        self.plain: dict[object, Plain] = {}
        self.pins: list[tuple[ExitStack, set[object]]] = []
        self.version = 0

    def page_bytes(self, need: Need) -> int:
        floating = need.dtype.is_floating_point
        dtype = self.dtype if self.dtype and floating else need.dtype
        return self.page_tokens * torch.Size(need.feature).numel() * dtype.itemsize

    def num_bytes(self, needs: dict[str, Need]) -> int:
        counts = {s: -(-need.num_tokens // self.page_tokens) for s, need in needs.items()}
        return sum(counts[site] * self.page_bytes(need) for site, need in needs.items())

    @rule(owner=OWNERS, needs=NEEDS, value=st.integers(0, 20))
    def reserve(self, owner: object, needs: dict[str, Need], value: int) -> None:
        if owner in self.plain and needs != self.plain[owner].needs:
            with pytest.raises(RuntimeError, match="other needs"):
                self.store.reserve(owner, needs, value)
            return
        if owner in self.plain:
            assert self.store.reserve(owner, needs, value)
            self.plain[owner].value = value
            return
        try:
            took = self.store.reserve(owner, needs, value)
        except OverBudget:
            # Between pages of different sizes less than a page is lost.
            slack = sum({self.page_bytes(need) for need in needs.values()})
            assert self.num_bytes(needs) + slack > BUDGET
            return
        gone = [name for name in self.plain if name not in self.store]
        assert took == (owner in self.store)
        assert took or not gone
        pinned = {name for _, names in self.pins for name in names}
        assert pinned.isdisjoint(gone)
        density = value / self.num_bytes(needs)
        lost = [self.plain.pop(name) for name in gone]
        assert all(one.value / self.num_bytes(one.needs) < density for one in lost)
        assert not lost or sum(one.value for one in lost) < value
        if took:
            self.plain[owner] = Plain(needs, value)

    @rule(owner=OWNERS, site=st.sampled_from(SITES), seed=SEEDS)
    def write_all(self, owner: object, site: str, seed: int) -> None:
        self.version += 1
        plain = self.plain.get(owner)
        if plain is None or site not in plain.needs:
            with pytest.raises(KeyError):
                self.store.write(owner, site, torch.zeros(1), version=self.version)
            return
        plain.values[site] = values(plain.needs[site], seed)
        plain.versions[site].fill_(self.version)
        self.store.write(owner, site, plain.values[site], version=self.version)

    @rule(owner=OWNERS, seed=SEEDS)
    def write_whole_owner(self, owner: object, seed: int) -> None:
        for site in self.plain[owner].needs if owner in self.plain else ():
            self.write_all(owner, site, seed)

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), seed=SEEDS)
    def write_some(self, data: st.DataObject, seed: int) -> None:
        owner = data.draw(st.sampled_from(list(self.plain)))
        plain = self.plain[owner]
        site = data.draw(st.sampled_from(list(plain.needs)))
        need = plain.needs[site]
        chosen = data.draw(st.sets(st.integers(0, need.num_tokens - 1)))
        tokens = torch.tensor(sorted(chosen), dtype=torch.int64)
        self.version += 1
        part = values(need, seed, len(chosen))
        plain.values[site][tokens] = part
        plain.versions[site][tokens] = self.version
        self.store.write(owner, site, part, tokens, version=self.version)

    @rule(owner=OWNERS)
    def free(self, owner: object) -> None:
        self.store.free(owner)
        self.plain.pop(owner, None)

    @rule(owner=OWNERS, value=st.integers(0, 20))
    def revalue(self, owner: object, value: int) -> None:
        if owner in self.plain:
            self.store.revalue(owner, value)
            self.plain[owner].value = value

    @rule(owner=OWNERS)
    def touch(self, owner: object) -> None:
        if owner in self.plain:
            self.store.touch(owner)
            assert self.store.owners[-1] == owner

    @rule(owners=st.sets(OWNERS))
    def pin(self, owners: set[object]) -> None:
        block = ExitStack()
        block.enter_context(self.store.pin(owners))
        self.pins.append((block, owners))

    @precondition(lambda self: self.pins)
    @rule()
    def unpin(self) -> None:
        self.pins.pop()[0].close()

    @rule(really=st.integers(0, 4))
    def clear(self, really: int) -> None:
        if really == 0:
            self.store.clear()
            self.plain.clear()

    @invariant()
    def memory_is_sound(self) -> None:
        self.store.check_integrity()
        figures = self.store.figures()
        assert figures.used_bytes <= figures.allocated_bytes <= BUDGET or not self.plain
        assert figures.used_bytes == sum(self.num_bytes(p.needs) for p in self.plain.values())
        assert set(self.store.owners) == set(self.plain)

    @invariant()
    def what_was_written_is_read(self) -> None:
        poison(self.store)
        for owner, plain in self.plain.items():
            assert self.store.missing(owner) != plain.written
            for site, expected in plain.values.items():
                assert torch.equal(self.store.versions(owner, site), plain.versions[site])
                if (plain.versions[site] >= 0).all():
                    assert torch.equal(self.store.read(owner, site), expected)
                    continue
                with pytest.raises(RuntimeError, match="never written"):
                    self.store.read(owner, site)

    def teardown(self) -> None:
        for block, _ in reversed(self.pins):
            block.close()
        self.store.clear()
        self.store.check_integrity()
        assert not self.store._pins


StoreStates.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestStoreStates = StoreStates.TestCase
